"""The measurement protocol: interleaved passes, drift taken out, low quantiles, pinned threads.

One long run per program drifts by 5% and more as the machine's clock and other load change. Short visits in
shuffled passes let every drift hit all programs alike. What slowed all of them for a moment is then taken out, and a
low quantile over the passes drops what was disturbed by itself. Where its memory happens to lie makes a program faster
or slower for as long as it stays open, some by 8%: so they are opened anew after every few passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How programs are timed.

    Attributes:
        visit_ms: time spent on a program in one pass.
        min_runs, max_runs: bounds on the timed runs of one visit.
        warmup_runs: runs at the start of each visit that are not counted; they bring the program into the caches.
        session_passes: passes over all programs after which they are opened anew, in another order.
        min_sessions, max_sessions: how often they are opened; at least twice, since even sessions are held against odd
            ones.
        max_seconds: no session beyond the least number is begun that would not end within this time, unless the figures
            could not be trusted without it.
        tolerance: sessions are added until, for 95% of the programs, the figures of the even and of the odd sessions
            differ by less than this fraction.
        max_disagreement: after the last session they may differ by this fraction; otherwise the machine was too noisy.
        seed: of the shuffling and of the inputs.
    """

    visit_ms: float = 3.0
    min_runs: int = 4
    max_runs: int = 60
    warmup_runs: int = 2
    session_passes: int = 8
    min_sessions: int = 2
    max_sessions: int = 4
    max_seconds: float = 600.0
    tolerance: float = 0.01
    max_disagreement: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.min_sessions <= self.max_sessions or not 1 <= self.min_runs <= self.max_runs:
            raise InvalidValue(
                f"a protocol needs 2 <= min <= max sessions and 1 <= min <= max runs, not {self.min_sessions} to "
                f"{self.max_sessions} sessions and {self.min_runs} to {self.max_runs} runs"
            )
        if self.session_passes < 1:
            raise InvalidValue(f"a session has at least one pass, not {self.session_passes}")


OPS = Protocol(min_sessions=3, max_sessions=10, max_seconds=25.0, tolerance=0.015)
# Runs that follow each other are slowed alike: of slow networks one run a visit, and more visits, tell more. Fast ones
# need some runs until they are as fast as they get. With all else the profile of a resolution takes two minutes.
NETWORKS = Protocol(
    visit_ms=6.0,
    min_runs=1,
    warmup_runs=1,
    min_sessions=2,
    max_sessions=16,
    max_seconds=55.0,
    tolerance=0.01,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocols:
    """How single ops and whole networks are timed; the defaults suit a machine that is left alone.

    Attributes:
        ops: for the ops of a space.
        networks: for whole networks: of a profile, a validation, a sweep, a bundle.
    """

    ops: Protocol = OPS
    networks: Protocol = NETWORKS


USUAL = Protocols()


def usual() -> Protocols:
    """The protocols of a measurement that is given none."""
    return USUAL


def order_of(protocol: Protocol, number: int, programs: int) -> npt.NDArray[np.int64]:
    """The programs of a pass in the order in which it visits them: ``(programs,)``."""
    return np.random.default_rng((protocol.seed, number)).permutation(programs)
