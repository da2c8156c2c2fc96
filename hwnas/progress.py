"""How long work tells how far it is; the command line draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

# Makes the context in which work can be cut short; it gives a function that returns True when the work shall end.
Stopping = Callable[[], AbstractContextManager[Callable[[], bool]]]


class Progress(Protocol):
    """Called as work goes on."""

    def __call__(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        """`done` of `total` steps of `what` are done.

        Args:
            what: the work.
            done: steps that are done.
            total: all steps.
            unit: what a step is, in the plural, e.g. ``images``.
            note: how the work goes, e.g. ``loss 1.23``; the last one counts.
        """


def never() -> bool:
    """An answer to "shall I stop?" that lets work go on to its end."""
    return False


@contextmanager
def unstoppable() -> Iterator[Callable[[], bool]]:
    """A `Stopping` that lets work go on to its end."""
    yield never


def silent(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
    """A `Progress` that says nothing."""
