"""Programs held open while they are timed, and opened anew from time to time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering import Program
from hwnas.runtimes import Session, open_session, session_class
from hwnas.targets import Recipe, reason_of

Sample = Callable[[], float]


class Opened:
    """The sessions of some programs, closed together at the end.

    Args:
        programs: name -> lowered program, or the file of one.
        recipe: says the runtime and its settings, which hold for the process from the first `anew` to the end.
        cores: those on which programs may be opened.
    """

    def __init__(self, programs: Mapping[str, Program | Path], recipe: Recipe, cores: Collection[int]) -> None:
        self._programs = programs
        self._recipe = recipe
        self._cores = cores
        self._sessions: dict[str, Session] = {}
        self._settings = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settings.close()
        for session in self._sessions.values():
            session.close()

    def anew(self, rng: np.random.Generator) -> dict[str, Sample]:
        """Every program as a call that runs it once and says how many milliseconds that took.

        They are opened in random order: where memory lies depends on what was opened before.

        A session is closed as soon as its program has a new one, so that two of a program are open but for a moment.
        """
        names = list(self._programs)
        first = not self._sessions
        calls: dict[str, Sample] = {}
        with self._each() as each:
            for name in each(self._open, [names[i] for i in rng.permutation(len(names))]):
                session = self._sessions[name]
                if first and not calls:
                    self._settings.enter_context(session.threads())
                call = session.bind(rng.standard_normal(session.shape, np.float32))
                calls[name] = partial(session.time_ms, call)
        return calls

    def _open(self, name: str) -> str:
        before = self._sessions.get(name)
        self._sessions[name] = before.again() if before else open_session(self._programs[name], self._recipe)
        if before:
            before.close()
        return name

    @contextmanager
    def _each(self) -> Iterator[Callable[[Callable[[str], str], list[str]], Iterable[str]]]:
        """A ``map`` that opens several programs at once where the runtime can: nothing is timed meanwhile."""
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
            raise RuntimeUnavailable(
                f"programs cannot be opened: {reason_of(OSError(errno.EAGAIN, str(error)))}"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
