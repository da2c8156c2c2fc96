"""Open programs during timing, which are reopened in every session."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hwnas.errors import OutOfMemory, RuntimeUnavailable
from hwnas.files import reason_of
from hwnas.lowering import Program
from hwnas.runtimes import Session, open_session, session_class
from hwnas.targets import Recipe
from hwnas.timing import memory

# Share of the initially available memory to keep free, and its minimum: runs allocate more than opening does (2.5 MiB
# per network of mobilenetv3 at 160 px in ONNX Runtime), and the system needs some for files.
_KEPT_SHARE, _KEPT_BYTES = 1 / 8, 64 * 2**20

Sample = Callable[[], float]


class Opened:
    """The sessions of some programs, as many at once as fit into memory; all are closed at the end.

    Args:
        programs: name -> lowered program or its file.
        recipe: defines the runtime and its settings, which apply to the process from the first `anew` to the end.
        cores: cores on which programs may be opened.
    """

    def __init__(self, programs: Mapping[str, Program | Path], recipe: Recipe, cores: Collection[int]) -> None:
        self._programs = programs
        self._recipe = recipe
        self._cores = cores
        self._sessions: dict[str, Session] = {}
        self._settings = ExitStack()
        self._settled = False
        self._available = memory.available_bytes()
        self._kept = max(int((self._available or 0) * _KEPT_SHARE), _KEPT_BYTES)
        self._largest = 0  # bytes that opening one program took
        self._most = len(programs)  # largest number of open programs

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settings.close()
        self._close(set(self._sessions))

    def anew(self, names: Sequence[str], rng: np.random.Generator) -> dict[str, Sample]:
        """Reopen programs, in this order; return name -> function that runs it once and returns the time in ms.

        The first of `names` are opened, as many as fit into memory. If not all fit, later calls open groups of about
        equal size. Sessions of other programs are closed.

        A session is closed as soon as its program has a new one, so two sessions of a program exist only briefly.

        Raises:
            OutOfMemory: not even one program fits.
        """
        group = names[: _even(len(names), self._most)]
        self._close(self._sessions.keys() - set(group))
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
            # Sessions that are still open are reopened later; freed memory is returned to the system.
            stale = self._sessions.keys() - calls.keys()
            self._close(stale)
            memory.give_back()
            if not self._has_room() or (len(calls) == before and not stale):
                break
        if not calls:
            raise self._does_not_fit(group[0])
        self._most = _even(len(names), len(calls))
        self._close(self._sessions.keys() - set(group[: self._most]))
        return {name: calls[name] for name in group[: self._most]}

    def _bound(self, name: str, rng: np.random.Generator) -> Sample:
        session = self._sessions[name]
        if not self._settled:
            self._settings.enter_context(session.threads())
            self._settled = True
        return partial(session.time_ms, session.bind(session.noise(rng)))

    def _open(self, name: str) -> str | None:
        """Reopen a program; None if it does not fit into memory."""
        before, alone = self._sessions.get(name), not self._sessions
        if not self._has_room():
            return None
        free = memory.available_bytes()
        self._sessions[name] = before.again() if before else open_session(self._programs[name], self._recipe)
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
        more = self._largest * (len(self._cores) + 1) if self._sessions else 0
        return left is None or left >= self._kept + more

    def _does_not_fit(self, name: str) -> OutOfMemory:
        now, start, kept = (
            f"{(found or 0) / 2**20:.0f} MiB" for found in (memory.available_bytes(), self._available, self._kept)
        )
        return OutOfMemory(
            f"a program of {self._recipe.name}, {name!r}, does not fit into memory: {start} were available at the "
            f"start and {now} are now, of which {kept} must stay free. Close other programs on this machine, raise "
            f"{memory.LIMIT} if it is set, or measure a smaller space (--fix resolution=...)"
        )

    def _close(self, names: Collection[str]) -> None:
        for name in names:
            self._sessions.pop(name).close()

    @contextmanager
    def _each(self) -> Iterator[Callable[[Callable[[str], str | None], Sequence[str]], Iterable[str | None]]]:
        """A ``map`` that opens several programs at once if the runtime supports it; nothing is timed meanwhile."""
        if not session_class(self._recipe).opens_in_threads or len(self._cores) < 2:
            yield map
            return
        pin = partial(os.sched_setaffinity, 0, self._cores)
        pool = ThreadPoolExecutor(len(self._cores), initializer=pin)
        try:
            yield pool.map
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                raise
            raise RuntimeUnavailable(f"cannot open programs: {reason_of(OSError(errno.EAGAIN, str(error)))}") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _even(count: int, most: int) -> int:
    """Size of the largest group if `count` programs are split into the fewest equal groups of at most `most`."""
    return ceil(count / ceil(count / most))
