"""Runtimes: execution of lowered programs, and timing without copies."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering import Program
from hwnas.plugins import load_object
from hwnas.runtimes.base import Session
from hwnas.targets import RUNTIMES, Recipe

__all__ = ["Session", "open_session", "session_class"]


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


def open_session(program: Program | Path, recipe: Recipe) -> Session:
    """Compile a program, or a file from `Form.write`, for a recipe. Use the session as a context manager.

    Raises:
        SpecError: the recipe has an option that the runtime does not know.
        RuntimeUnavailable: the runtime cannot run here.
        BundleError: the file is not a program of this runtime.
    """
    return session_class(recipe)(program, recipe)
