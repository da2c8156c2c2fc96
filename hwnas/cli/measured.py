"""What the verbs share that measure a space, or kernels, on several targets."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from hwnas.errors import HwnasError, InvalidValue


def raise_last(failed: Mapping[str, HwnasError]) -> None:
    """Print the errors of several targets, and raise the last one; nothing without errors.

    Args:
        failed: target's name -> error.
    """
    if not failed:
        return
    *others, last = failed.items()
    for name, error in others:
        typer.echo(f"error: {name}: {error}", err=True)
    raise last[1]


def required_space(space: str | None, *, kernels: bool, of_spaces: Mapping[str, object]) -> str | None:
    """The space of a verb that takes either a space or kernels; None for kernels.

    Args:
        space: given with ``--space``.
        kernels: whether ``--kernels`` was given.
        of_spaces: name of an option that applies to spaces only -> its value, falsy by default.

    Raises:
        InvalidValue: both or neither were given, or an option of spaces with ``--kernels``.
    """
    if not kernels:
        if space is None:
            raise InvalidValue("--space is missing (hwnas spaces list); or --kernels, for networks of any kind")
        return space
    if given := [name for name, value in {"--space": space, **of_spaces}.items() if value]:
        raise InvalidValue(f"{' and '.join(given)}: these are for a space, and not for --kernels")
    return None
