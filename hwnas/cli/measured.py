"""What the verbs share that measure a space, or kernels, on several targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

from hwnas.cli import output
from hwnas.errors import HwnasError, InvalidValue

if TYPE_CHECKING:
    from hwnas.workflows.answers import Answer

Answered = TypeVar("Answered", bound="Answer")


def print_answers(
    answers: Sequence[Answered], targets: Sequence[str], show: Callable[[Answered], None], *, as_json: bool
) -> None:
    """Print the answers of the targets that were measured; as JSON one document for one target, a list for several."""
    if as_json:
        documents = [answer.document() for answer in answers]
        output.print_json(documents[0] if len(targets) == 1 and documents else documents)
        return
    for answer in answers:
        show(answer)


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
