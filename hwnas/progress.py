"""Progress callbacks of long work; the command line draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

# A context in which work can be stopped early; it yields a function that returns True when the work must stop.
Stopping = Callable[[], AbstractContextManager[Callable[[], bool]]]


class Progress(Protocol):
    """Callback, invoked as work proceeds."""

    def __call__(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        """`done` of `total` steps of `what` are done.

        Args:
            what: the work.
            done: number of finished steps.
            total: number of all steps.
            unit: what a step is, in the plural, e.g. ``images``.
            note: state of the work, e.g. ``loss 1.23``; the latest is shown.
        """


def never() -> bool:
    """A stop predicate that is never true."""
    return False


@contextmanager
def unstoppable() -> Iterator[Callable[[], bool]]:
    """A `Stopping` that never stops the work."""
    yield never


def silent(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
    """A `Progress` that does nothing."""
