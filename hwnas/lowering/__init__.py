"""Lowering: from torch modules to programs of a runtime, for whole networks and for ops cut from the same export.

A `Form` is a kind of program. Each runtime loads one form; `form_of` says which.
"""

from __future__ import annotations

from hwnas.lowering.form import Form, Program
from hwnas.targets import Recipe, detect_host, with_weights

__all__ = ["Form", "Program", "form_of"]


def form_of(recipe: Recipe) -> Form:
    """The form of programs that a recipe's runtime loads.

    The recipe of a `Target` has a resolved range of int8 weights; for a recipe without a device it suits this host.
    """
    recipe = with_weights(recipe, detect_host().flags)
    if recipe.facts.form == "onnx":
        from hwnas.lowering.onnx import OnnxForm

        return OnnxForm(recipe)
    from hwnas.lowering.torch import TorchForm

    return TorchForm(recipe)
