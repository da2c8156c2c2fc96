"""The measurement protocol: interleaved passes, drift correction, low quantiles, pinned threads.

One long run per program drifts by 5% and more as the machine's clock and other load change. With short visits in
shuffled passes, drift affects all programs alike. The common drift is then removed, and a low quantile over the passes
drops visits that were disturbed individually. The memory layout makes a program faster or slower as long as it is
open, some by 8%, so programs are reopened after every few passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Parameters of timing.

    Attributes:
        visit_ms: time spent on a program in one pass.
        min_runs, max_runs: bounds on the timed runs of one visit.
        warmup_runs: untimed runs at the start of each visit; they bring the program into the caches.
        session_passes: passes over all programs per session; then they are reopened in another order.
        min_sessions, max_sessions: number of sessions; at least two, because even sessions are compared with odd ones.
        max_seconds: after `min_sessions`, no session starts that would not end within this time, unless the figures
            could not be trusted without it.
        tolerance: sessions are added until, for 95% of the programs, the figures of even and odd sessions differ by
            less than this fraction.
        max_disagreement: largest accepted difference after the last session, a fraction; above it the machine was
            too noisy.
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
            raise InvalidValue(f"a session needs at least one pass, not {self.session_passes}")

    @property
    def of_visit(self) -> tuple[float, int, int, int]:
        """The arguments of `hwnas.runner.visits.visit`: duration in milliseconds, least, most and warm-up runs."""
        return self.visit_ms, self.min_runs, self.max_runs, self.warmup_runs


OPS = Protocol(min_sessions=3, max_sessions=10, max_seconds=25.0, tolerance=0.015)
# Consecutive runs are slowed alike: for slow networks, one run per visit and more visits are more informative. Fast
# ones need some runs to reach full speed. In total, the profile of a resolution takes two minutes.
NETWORKS = Protocol(
    visit_ms=6.0,
    min_runs=1,
    warmup_runs=1,
    min_sessions=2,
    max_sessions=16,
    max_seconds=55.0,
    tolerance=0.01,
)
# With visits as above, ten networks of 0.07 ms are timed in a second, and the speed of a virtual machine drifts by 4%
# from one to the next, once by 10%: with these visits, in half a minute.
FEW = replace(NETWORKS, visit_ms=200.0, max_runs=5000, min_sessions=4)
# Two sessions where the machine is quiet. A third to a sixth takes 13 s each, a batch that is refused and measured
# again 80 s: of nine batches on a noisy machine, four were.
KERNELS = Protocol(visit_ms=6.0, min_runs=1, warmup_runs=1, session_passes=8, max_sessions=6, tolerance=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocols:
    """Protocols of what is timed; the defaults suit an otherwise idle machine.

    Attributes:
        ops: for the ops of a space.
        networks: for whole networks: of a profile, a validation, a sweep, a bundle.
        few: for the networks that a table is transferred with, so few that they would be timed in a moment.
        kernels: for the random networks in which kernels are measured: many, so that each is visited less.
    """

    ops: Protocol = OPS
    networks: Protocol = NETWORKS
    few: Protocol = FEW
    kernels: Protocol = KERNELS


USUAL = Protocols()


def usual() -> Protocols:
    """The default protocols."""
    return USUAL


def order_of(protocol: Protocol, number: int, programs: int) -> npt.NDArray[np.int64]:
    """The programs of a pass in the order of their visits: ``(programs,)``."""
    return np.random.default_rng((protocol.seed, number)).permutation(programs)
