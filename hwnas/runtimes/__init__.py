"""Runtimes: what executes a lowered program, and how it is timed without copies."""

from __future__ import annotations

from pathlib import Path

from hwnas.errors import UnknownName
from hwnas.lowering import Program
from hwnas.runtimes.base import Session
from hwnas.targets import RUNTIMES, Recipe

__all__ = ["Session", "open_session", "session_class"]


def session_class(recipe: Recipe) -> type[Session]:
    """The session class of a recipe's runtime; imports the vendor's library.

    Raises:
        UnknownName: the recipe names no known runtime.
        RuntimeUnavailable: the library is not installed.
    """
    if recipe.runtime == "onnxruntime":
        from hwnas.runtimes.onnxruntime import OnnxRuntimeSession

        return OnnxRuntimeSession
    if recipe.runtime == "torch":
        from hwnas.runtimes.torch import TorchSession

        return TorchSession
    raise UnknownName("runtime", recipe.runtime, RUNTIMES)  # only if a name is added to RUNTIMES alone


def open_session(program: Program | Path, recipe: Recipe) -> Session:
    """Compile a program, or the file that `Form.write` wrote, for a recipe. Use it in a ``with``.

    Raises:
        SpecError: the recipe has an option that the runtime does not know.
        RuntimeUnavailable: the runtime cannot run here.
        BundleError: the file is not a program of this runtime.
    """
    return session_class(recipe)(program, recipe)
