"""How long work tells how far it is; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps of `what` are behind us."""


def never() -> bool:
    """An answer to "shall I stop?" that lets work go on to its end."""
    return False


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that says nothing."""
