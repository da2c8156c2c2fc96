"""The interface of engines, and the one that works in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

Opened = TypeVar("Opened")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(ABC):
    """Runs a function on items that do not depend on each other.

    As a context manager, it ends its workers.
    """

    @property
    def workers(self) -> int:
        """Number of items that run at the same time."""
        return 1

    @abstractmethod
    def map(
        self,
        source: Callable[[], Opened],
        run: Callable[[Opened, Item], Result],
        items: Sequence[Item],
        *,
        name: Callable[[Item], str] = str,
    ) -> Iterator[tuple[int, Result]]:
        """Run a function on items, and yield the index and the result of each as soon as it is done, in any order.

        Several threads may call it at the same time. Workers get `source`, `run` and the items as pickles: functions of
        modules, `functools.partial` of them, and values such as paths; their results come back likewise. A worker that
        ends loses the item in hand, which another one gets.

        Args:
            source: opens what the items have in common, such as an evaluator. A worker keeps what it has opened, and
                calls `source` again only when it gets another one.
            run: (what `source` returned, item) -> result.
            items: the items.
            name: of an item in messages.

        Raises:
            EngineError: no worker can start, an item ended its worker three times, or the engine was closed.
            Exception: what `source` or `run` raises.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, and with them all calls of `map`. A later call starts new workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Serial(Engine):
    """Runs the items in this process, one after the other, in their order; nothing is pickled."""

    def map(
        self,
        source: Callable[[], Opened],
        run: Callable[[Opened, Item], Result],
        items: Sequence[Item],
        *,
        name: Callable[[Item], str] = str,
    ) -> Iterator[tuple[int, Result]]:
        """As `Engine.map`."""
        if items:
            opened = source()
            for index, item in enumerate(items):
                yield index, run(opened, item)

    def close(self) -> None:
        """Do nothing: there is no other process."""


SERIAL = Serial()
