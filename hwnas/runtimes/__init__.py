"""Runtimes: execution of lowered programs, and timing without copies."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from hwnas.errors import InvalidValue, RuntimeUnavailable
from hwnas.lowering import Program
from hwnas.plugins import load_object
from hwnas.runtimes.base import Session
from hwnas.targets import RUNTIMES, Recipe

__all__ = ["Session", "any_batch_class", "open_session", "session_class"]


def session_class(recipe: Recipe) -> type[Session]:
    """The session class of a recipe's runtime; imports the vendor's library.

    Raises:
        RuntimeUnavailable: a library, a driver or a GPU is missing, the CPU lacks instructions for the recipe's
            precision, or hwnas does not drive this runtime.
    """
    facts = recipe.facts
    if facts.session is None:
        driven = ", ".join(name for name, each in RUNTIMES.items() if each.session)
        raise RuntimeUnavailable(
            f"{recipe.name} has the runtime {recipe.runtime!r}, which hwnas does not drive: its tables can be imported "
            f"and searched, but it cannot measure or deploy networks. Runtimes that can: {driven}"
        )
    try:
        found = cast("type[Session]", load_object(facts.session))
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{missing} is not installed" if missing else f"cannot load its library: {error}"
        helps = f": pip install {facts.install}" if missing and facts.install else ""
        raise RuntimeUnavailable(f"{recipe.name} cannot run here: {why}{helps}") from error
    if problems := found.missing(recipe.precision):
        raise RuntimeUnavailable(f"{recipe.name} cannot run here: {'; '.join(problems)}")
    return found


def any_batch_class(recipe: Recipe) -> type[Session]:
    """The session class of a recipe whose programs may take any number of images in a run.

    Raises:
        InvalidValue: they have a fixed batch.
        RuntimeUnavailable: as for `session_class`.
    """
    found = session_class(recipe)
    if not found.takes_any_batch:
        raise InvalidValue(
            f"{recipe.name} cannot have a dynamic batch: programs of {recipe.runtime} take a fixed number of images in "
            "a run. Export without it, or choose a recipe of onnxruntime, openvino or torch on the CPU"
        )
    return found


def open_session(program: Program | Path, recipe: Recipe, *, any_batch: bool = False) -> Session:
    """Compile a program, or a file from `Form.write`, for a recipe. Use the session as a context manager.

    Args:
        program: the program, or its file.
        recipe: the recipe. A symbolic batch axis is fixed to its batch: the program is then the profiled one.
        any_batch: leave the axis symbolic, so that a run takes any number of images.

    Raises:
        InvalidValue: `any_batch`, but programs of the runtime take a fixed number.
        SpecError: the recipe has an option that the runtime does not know.
        RuntimeUnavailable: the runtime cannot run here.
        BundleError: the file is not a program of this runtime.
    """
    if not any_batch:  # sessions of plugins need not know the argument
        return session_class(recipe)(program, recipe)
    return any_batch_class(recipe)(program, recipe, any_batch=True)
