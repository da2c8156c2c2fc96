"""From torch modules to what a runtime loads: whole networks, and ops cut from the same export.

A `Form` is a kind of program. Each runtime loads one form; `form_of` says which.
"""

from __future__ import annotations

from hwnas.lowering.form import Form, Program
from hwnas.targets import RUNTIMES, Recipe

__all__ = ["Form", "Program", "form_of"]


def form_of(recipe: Recipe) -> Form:
    """The form of program that a recipe's runtime loads."""
    if RUNTIMES[recipe.runtime].takes_onnx:
        from hwnas.lowering.onnx import OnnxForm

        return OnnxForm(recipe)
    from hwnas.lowering.torch import TorchForm

    return TorchForm(recipe)
