"""Timed runs of open programs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Sample = Callable[[], float]


def visit(sample: Sample, visit_ms: float, min_runs: int, max_runs: int, warmup_runs: int) -> list[float]:
    """Samples of one visit, in milliseconds: `visit_ms` of runs after the warm-up, within the bounds on their number.

    Args:
        sample: runs the program once and returns the time in milliseconds.
        visit_ms: time spent on it.
        min_runs: least number of timed runs.
        max_runs: largest number of timed runs.
        warmup_runs: untimed runs before.
    """
    once_ms = max(sum(sample() for _ in range(warmup_runs)) / max(warmup_runs, 1), 1e-6)
    runs = int(min(max(visit_ms / once_ms, min_runs), max_runs))
    return [sample() for _ in range(runs)]


@contextmanager
def no_garbage_collection(*, collect: bool) -> Iterator[None]:
    """Disable Python's garbage collector; if `collect`, collect first, which takes 0.7 s with torch's objects."""
    was_enabled = gc.isenabled()
    if collect:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
