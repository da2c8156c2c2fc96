"""Programs that are open for timing, as many at once as fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from math import ceil
from types import TracebackType
from typing import Any

import numpy as np

from hwnas.runner import memory
from hwnas.runner.program import Timed
from hwnas.runner.signature import Feeds
from hwnas.runner.visits import Sample

# Share of the initially available memory to keep free, and its minimum: runs allocate more than opening does (2.5 MiB
# per network of mobilenetv3 at 160 px in ONNX Runtime), and the system needs some for files.
_KEPT_SHARE, _KEPT_BYTES = 1 / 8, 64 * 2**20


class DoesNotFit(Exception):
    """Not even one program fits into memory."""


class NoThreads(Exception):
    """The system starts no further threads."""


class Opened:
    """The open ones of some programs; all are closed at the end.

    Args:
        names: of the programs.
        load: loads the program of a name.
        cores: cores on which programs may be opened.
        in_threads: whether to open several at once; asked before the first is opened.
        what: of the programs, for messages.
        feeds: inputs of every program; random ones if None.
    """

    def __init__(
        self,
        names: Collection[str],
        load: Callable[[str], Timed],
        *,
        cores: Collection[int],
        in_threads: Callable[[], bool],
        what: str,
        feeds: Feeds | None = None,
    ) -> None:
        self._feeds = feeds
        self._load, self._cores, self._in_threads, self._what = load, cores, in_threads, what
        self._programs: dict[str, Timed] = {}
        self._settings = ExitStack()
        self._settled = False
        self._available = memory.available_bytes()
        self._kept = max(int((self._available or 0) * _KEPT_SHARE), _KEPT_BYTES)
        self._largest = 0  # bytes that opening one program took
        self._most = len(names)  # largest number of open programs

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settings.close()
        self._close(set(self._programs))

    def anew(self, names: Sequence[str], rng: np.random.Generator) -> dict[str, Sample]:
        """Reopen programs, in this order; return name -> function that runs it once and returns the time in ms.

        The first of `names` are opened, as many as fit into memory. If not all fit, later calls open groups of about
        equal size. Other programs are closed.

        A program is closed as soon as it is open again, so it is open twice only briefly.

        Raises:
            DoesNotFit: not even one program fits.
            NoThreads: the system starts no further threads.
        """
        group = names[: _even(len(names), self._most)]
        self._close(self._programs.keys() - set(group))
        calls: dict[str, Sample] = {}
        while len(calls) < len(group):
            before = len(calls)
            with self._each() as each:
                for name in each(self._open, group[before:]):
                    if name is None:
                        break
                    calls[name] = self._bound(name, rng)
            if len(calls) == len(group):
                return calls
            # Programs that are still open are reopened later; freed memory is returned to the system.
            stale = self._programs.keys() - calls.keys()
            self._close(stale)
            memory.give_back()
            if not self._has_room() or (len(calls) == before and not stale):
                break
        if not calls:
            raise self._does_not_fit(group[0])
        self._most = _even(len(names), len(calls))
        self._close(self._programs.keys() - set(group[: self._most]))
        return {name: calls[name] for name in group[: self._most]}

    def _bound(self, name: str, rng: np.random.Generator) -> Sample:
        program = self._programs[name]
        if not self._settled:
            self._settings.enter_context(program.threads())
            self._settled = True
        call = program.bind_noise(rng) if self._feeds is None else program.bind_feeds(self._feeds)
        return partial(program.time_ms, call)

    def _open(self, name: str) -> str | None:
        """Reopen a program; None if it does not fit into memory."""
        before, alone = self._programs.get(name), not self._programs
        if not self._has_room():
            return None
        free = memory.available_bytes()
        self._programs[name] = before.again() if before else self._load(name)
        if before:
            before.close()
        left = memory.available_bytes()
        if free is not None and left is not None:
            self._largest = max(self._largest, free - left)
            if alone and left < self._kept:
                raise self._does_not_fit(name)
        return name

    def _has_room(self) -> bool:
        """Whether another program fits into memory."""
        left = memory.available_bytes()
        # One for each thread that opens programs, and one for temporary memory of the compiler.
        more = self._largest * (len(self._cores) + 1) if self._programs else 0
        return left is None or left >= self._kept + more

    def _does_not_fit(self, name: str) -> DoesNotFit:
        now, start, kept = (
            f"{(found or 0) / 2**20:.0f} MiB" for found in (memory.available_bytes(), self._available, self._kept)
        )
        return DoesNotFit(
            f"a program of {self._what}, {name!r}, does not fit into memory: {start} were available at the "
            f"start and {now} are now, of which {kept} must stay free. Close other programs on this machine, raise "
            f"{memory.LIMIT} if it is set, or measure a smaller space (--fix resolution=...)"
        )

    def _close(self, names: Collection[str]) -> None:
        for name in names:
            self._programs.pop(name).close()

    @contextmanager
    def _each(self) -> Iterator[Callable[[Callable[[str], str | None], Sequence[str]], Iterable[str | None]]]:
        """A ``map`` that opens several programs at once if the runtime supports it; nothing is timed meanwhile."""
        if len(self._cores) < 2 or not self._in_threads():
            yield map
            return
        pin: Any = partial(os.sched_setaffinity, 0, self._cores)
        pool = ThreadPoolExecutor(len(self._cores), initializer=pin)
        try:
            yield pool.map
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                raise
            raise NoThreads(str(error)) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _even(count: int, most: int) -> int:
    """Size of the largest group if `count` programs are split into the fewest equal groups of at most `most`."""
    return ceil(count / ceil(count / most))
