"""How many threads a training computes with, beside other work on the same cores.

OpenMP's threads wait for each other at the end of every operation, and spin while they do. Where other work takes one
of their cores, each operation lasts until the scheduler gives that core back: with one of two cores busy, 271 images a
second fell to 8.8, and one thread alone trains 127. Waiting passively (`OMP_WAIT_POLICY`) cannot be switched on later,
and costs 40% on a quiet machine. So the number of threads follows the cores that other work leaves.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

_STEPS, _LEAST_S, _MOST_S = 3, 2.0, 5.0  # a window: three steps and two seconds, or what five seconds hold
_SLOWER = 1.5  # than the fastest window: other work that leaves the steps as fast as ever needs no answer
_GAIN = 1.2  # with fewer threads, or they were not the remedy
_ROUNDS = (
    64  # windows that a threshold grows to, by doubling, so that work that comes and goes is not followed for ever
)


def training_threads(device: torch.device, processes: int) -> Threads:
    """The threads of a training in this process.

    They stay as they are on a GPU, with several processes (whose threads are one another's other work), with one
    thread, with ``OMP_DYNAMIC=false``, and on systems that do not tell what keeps their cores busy.

    Args:
        device: that it computes on.
        processes: of the training.
    """
    fixed = os.environ.get("OMP_DYNAMIC", "").strip().lower() in ("false", "0")
    follow = device.type == "cpu" and processes == 1 and not fixed and hasattr(os, "sched_getaffinity")
    return _threads(torch.get_num_threads(), frozenset(os.sched_getaffinity(0)) if follow else frozenset())


@cache
def _threads(threads: int, cores: frozenset[int]) -> Threads:
    """One for all trainings of a process: the parts of a study's trainings last seconds."""
    others = BusyCores(cores) if threads > 1 and cores else None
    return Threads(threads, len(cores), others=others or (lambda: None))


class Threads:
    """Follows the steps of a training and switches the number of its threads, as a context.

    Fewer threads are tried where other work leaves fewer cores than there are threads and the steps are slower than
    they were without it; they stay if the steps become faster. All come back when the cores are free again.

    A switch changes the order of sums, so results differ from then on by rounding. Without other work nothing is
    switched. ``OMP_DYNAMIC=false`` in the environment, OpenMP's own word for it, forbids it. Behind the context all
    threads are there again.

    Args:
        threads: that the training begins with, and has at most.
        cores: that it may run on.
        others: returns how many cores other work kept busy since it was last called; None if that is not known.
        switch: sets the number of threads.
        clock: seconds.

    Attributes:
        threads: that the training computes with.
        note: why those are not all, if they are not.
    """

    def __init__(
        self,
        threads: int,
        cores: int,
        *,
        others: Callable[[], float | None],
        switch: Callable[[int], None] = torch.set_num_threads,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.threads = self._most = threads
        self._cores, self._others, self._switch, self._clock = cores, others, switch, clock
        self.note = ""
        self._best_s = math.inf  # of a window with all threads and without other work
        self._contended: float | None = None  # seconds a step of the window before, if others were in the way
        self._trial: tuple[int, float] | None = None  # threads and seconds a step before fewer were tried
        self._pause, self._paused = 1, 0  # windows without a trial after one that did not help
        self._calm_needed, self._calm = 2, 0  # windows in a row until all threads come back
        self._begin()

    def __enter__(self) -> Self:
        self._trial, self._contended, self._best_s = None, None, math.inf  # of another training, perhaps
        if self.threads != self._most:
            self._switch(self.threads)
        self._others()
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.threads != self._most:
            self._switch(self._most)
        if self._trial is not None:  # undecided
            self.threads = self._trial[0]

    def step(self) -> None:
        """A step of the training is over."""
        self._steps += 1
        elapsed = self._clock() - self._began
        if elapsed < (_LEAST_S if self._steps >= _STEPS else _MOST_S):
            return
        busy = self._others()
        if busy is not None:
            self._follow(elapsed / self._steps, busy)
        self._begin()

    def noted(self, text: str) -> str:
        """What the progress of a training shows beside its images: a text, and why there are fewer threads."""
        return f"{text}, {self.note}" if self.note else text

    def pause(self) -> None:
        """Leave the time since the last step out: the training did something else."""
        self._begin()

    def _begin(self) -> None:
        self._steps, self._began = 0, self._clock()

    def _follow(self, step_s: float, busy: float) -> None:
        """Judge a window: the mean time of its steps, and how many cores other work kept busy meanwhile."""
        free = max(1, min(self._most, int(self._cores - busy + 0.5)))  # half a core that is busy counts as one
        if self._trial is not None:
            self._judge(step_s, *self._trial)
            return
        self._calm = self._calm + 1 if free > self.threads else 0
        if free < self.threads:
            self._consider(step_s, busy, free)
            return
        self._contended = None
        if self._calm >= self._calm_needed:
            self._calm_needed = min(2 * self._calm_needed, _ROUNDS)
            self._set(free, busy)
        elif self.threads == self._most:
            self._best_s = min(self._best_s, step_s)

    def _consider(self, step_s: float, busy: float, free: int) -> None:
        """Try fewer threads in the second window in a row in which others were in the way."""
        slow = self._best_s == math.inf or step_s > _SLOWER * self._best_s
        if self._paused or not slow:
            self._paused = max(0, self._paused - 1)
            self._contended = None
        elif self._contended is None:
            self._contended = step_s
        else:
            self._trial = (self.threads, min(self._contended, step_s))
            self._contended = None
            self._set(free, busy)

    def _judge(self, step_s: float, before: int, before_s: float) -> None:
        """Keep fewer threads if the steps became faster, or go back."""
        self._trial = None
        if before_s > _GAIN * step_s:
            self._pause = 1
            return
        self._pause = min(2 * self._pause, _ROUNDS)
        self._paused = self._pause
        self._set(before, 0.0)

    def _set(self, threads: int, busy: float) -> None:
        self.threads = threads
        self._switch(threads)
        fewer = f"{threads} of {self._most} threads: other work keeps {busy:.1f} of {self._cores} cores busy"
        self.note = fewer if threads < self._most else ""


class BusyCores:
    """How many of some cores other processes kept busy since the last call, from ``/proc/stat``.

    Args:
        cores: their numbers.
        stat: the file.
        own_s: CPU time of this process, in seconds.
        clock: seconds.
    """

    def __init__(
        self,
        cores: frozenset[int],
        *,
        stat: Path = Path("/proc/stat"),
        own_s: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = {f"cpu{core}" for core in cores}
        self._stat, self._own_s, self._clock = stat, own_s, clock
        self._last = self._read()

    def __call__(self) -> float | None:
        """Cores, 0 to all; None if the system does not tell."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        busy_s, own_s, elapsed_s = (now - then for now, then in zip(self._last, before, strict=True))
        return min(max(0.0, (busy_s - own_s) / elapsed_s), float(len(self._names))) if elapsed_s > 0 else 0.0

    def _read(self) -> tuple[float, float, float] | None:
        """Seconds that the cores were busy, of this process, and of the clock."""
        try:
            rows = [line.split() for line in self._stat.read_text(encoding="utf-8").splitlines()]
            # user nice system idle iowait irq softirq steal; guests are part of user
            busy = [sum(map(int, row[1:4] + row[6:9])) for row in rows if row and row[0] in self._names]
        except (OSError, ValueError):
            return None
        if len(busy) != len(self._names):
            return None
        return sum(busy) / os.sysconf("SC_CLK_TCK"), self._own_s(), self._clock()
