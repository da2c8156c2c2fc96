"""Timed runs of open programs."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import Callable, Iterator, List

Sample = Callable[[], float]


def visit(sample: Sample, visit_ms: float, min_runs: int, max_runs: int, warmup_runs: int) -> List[float]:
    """Samples of one visit, in milliseconds: `visit_ms` of runs after the warm-up, within the bounds on their number.

    Args:
        sample: runs the program once and returns the time in milliseconds.
        visit_ms, min_runs, max_runs, warmup_runs: as in `hwnas.timing.Protocol`.
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
