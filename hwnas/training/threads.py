"""Adapt the number of threads of a training to the load of other processes on the same cores.

OpenMP threads synchronise at the end of every operation, and spin while they wait. If another process occupies one of
their cores, each operation takes until the scheduler returns that core: with one of two cores busy, throughput fell
from 271 to 8.8 images per second, while a single thread trains 127. Passive waiting (`OMP_WAIT_POLICY`) cannot be
enabled at run time, and costs 40% on an idle machine. The number of threads is therefore adapted to the free cores.
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

_STEPS, _LEAST_S, _MOST_S = 3, 2.0, 5.0  # a window: at least three steps and two seconds, or five seconds
_SLOWER = 1.5  # ratio to the fastest window; other work that does not slow down the steps is ignored
_GAIN = 1.2  # minimum speed-up to keep fewer threads
_ROUNDS = 64  # windows; limit of the doubling thresholds, which avoid endless switching under intermittent load


def training_threads(device: torch.device, processes: int) -> Threads:
    """Return the threads of a training in this process.

    Their number is constant on a GPU, with several processes (each would count the others' threads as other work), with
    one thread, with ``OMP_DYNAMIC=false``, and on systems that do not report the load of their cores.

    Args:
        device: the device of the training.
        processes: number of processes of the training.
    """
    fixed = os.environ.get("OMP_DYNAMIC", "").strip().lower() in ("false", "0")
    follow = device.type == "cpu" and processes == 1 and not fixed and hasattr(os, "sched_getaffinity")
    return _threads(torch.get_num_threads(), frozenset(os.sched_getaffinity(0)) if follow else frozenset())


@cache
def _threads(threads: int, cores: frozenset[int]) -> Threads:
    """Return one object for all trainings of a process: a study trains in parts that last seconds."""
    others = BusyCores(cores) if threads > 1 and cores else None
    return Threads(threads, len(cores), others=others or (lambda: None))


class Threads:
    """A context manager that times the steps of a training and adapts its number of threads.

    It tries fewer threads if other work leaves fewer cores than there are threads and the steps are slower than without
    other work. It keeps them if the steps become faster, and restores all threads when the cores are free again.

    A switch changes the order of summation, so later results differ by rounding. Without other work, the number of
    threads never changes. OpenMP's variable ``OMP_DYNAMIC=false`` in the environment disables switching. On exit, the
    context restores all threads.

    Args:
        threads: initial and maximum number of threads.
        cores: number of cores on which the training may run.
        others: returns the number of cores that other work kept busy since the last call; None if unknown.
        switch: sets the number of threads.
        clock: returns the time in seconds.

    Attributes:
        threads: current number of threads.
        note: why the training uses fewer than all threads; empty if it uses all.
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
        self._best_s = math.inf  # best time of a step with all threads and without other work
        self._contended: float | None = None  # seconds per step in the previous window, if slowed by other work
        self._trial: tuple[int, float] | None = None  # threads and seconds per step before the trial
        self._pause, self._paused = 1, 0  # windows to skip after a failed trial, and those left
        self._calm_needed, self._calm = 2, 0  # free windows in a row: required to restore threads, so far
        self._begin()

    def __enter__(self) -> Self:
        self._trial, self._contended, self._best_s = None, None, math.inf  # may be from another training
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
        """Record the end of a training step."""
        self._steps += 1
        elapsed = self._clock() - self._began
        if elapsed < (_LEAST_S if self._steps >= _STEPS else _MOST_S):
            return
        busy = self._others()
        if busy is not None:
            self._follow(elapsed / self._steps, busy)
        self._begin()

    def noted(self, text: str) -> str:
        """Append the reason for fewer threads, if any, to a note for the progress output."""
        return f"{text}, {self.note}" if self.note else text

    def pause(self) -> None:
        """Exclude the time since the last step, and start a new window: the training did other work."""
        self._begin()

    def _begin(self) -> None:
        self._steps, self._began = 0, self._clock()

    def _follow(self, step_s: float, busy: float) -> None:
        """Evaluate a window, given the mean time of its steps and the number of cores that other work kept busy."""
        free = max(1, min(self._most, int(self._cores - busy + 0.5)))  # rounded to the nearest integer
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
        """Try fewer threads in the second successive window that other work slows down."""
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
        """Keep fewer threads if the steps became faster; otherwise restore the previous number."""
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
    """Measure how many of the given cores other processes kept busy since the last call, from ``/proc/stat``.

    Args:
        cores: numbers of the cores.
        stat: path of the file.
        own_s: returns the CPU time of this process, in seconds.
        clock: returns the time in seconds.
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
        """Return the number of busy cores, from 0 to all; None if the system does not report it."""
        before, self._last = self._last, self._read()
        if before is None or self._last is None:
            return None
        busy_s, own_s, elapsed_s = (now - then for now, then in zip(self._last, before, strict=True))
        return min(max(0.0, (busy_s - own_s) / elapsed_s), float(len(self._names))) if elapsed_s > 0 else 0.0

    def _read(self) -> tuple[float, float, float] | None:
        """Return, in seconds: busy time of the cores, CPU time of this process, and clock time."""
        try:
            rows = [line.split() for line in self._stat.read_text(encoding="utf-8").splitlines()]
            # user nice system idle iowait irq softirq steal; user includes guest
            busy = [sum(map(int, row[1:4] + row[6:9])) for row in rows if row and row[0] in self._names]
        except (OSError, ValueError):
            return None
        if len(busy) != len(self._names):
            return None
        return sum(busy) / os.sysconf("SC_CLK_TCK"), self._own_s(), self._clock()
