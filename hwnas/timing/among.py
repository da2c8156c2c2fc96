"""Timing of few programs: among copies of themselves and reference programs, with a profile's estimator.

A profile times dozens of programs, removes their common drift and uses calm visits. A few programs cannot be told from
the machine's drift, so each is opened several times: its copies lie elsewhere in memory and are visited at other
moments. Reference programs, whose times in the profile are known, show the machine's speed now.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from hwnas.lowering import Program
from hwnas.timing.measurement import FEW, Measurement

# How programs are timed: `hwnas.machines.Machine.time` with a recipe, a protocol and a journal.
Time: TypeAlias = Callable[[Mapping[str, "Program | Path"]], Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A program and its latency in the profile, in milliseconds."""

    program: Program | Path
    profiled_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """A measurement of programs among references.

    Attributes:
        measured: all programs and their copies.
        copies: name of a program -> the names of its copies in `measured`.
        speed: of the machine relative to its speed in the profile, by the references; None without references.
    """

    measured: Measurement
    copies: Mapping[str, tuple[str, ...]]
    speed: float | None

    def p25_ms(self, name: str) -> float:
        """Latency of a program on the quiet machine (25% quantile without drift), in milliseconds."""
        return self.measured.p25_ms(self.copies[name])

    def expected_ms(self, predicted_ms: float) -> float:
        """A prediction at the machine's present speed, in milliseconds."""
        return predicted_ms / (self.speed or 1.0)


def time_among(programs: Mapping[str, Program | Path], references: Mapping[str, Reference], time: Time) -> Among:
    """Time programs among copies and references.

    Args:
        programs: name -> lowered program or its file.
        references: name -> reference; empty if there are none.
        time: times programs in common passes.

    Raises:
        HwnasError: as `time` raises.
    """
    whole: dict[str, Program | Path] = {**programs, **{f"reference {n}": r.program for n, r in references.items()}}
    count = math.ceil(FEW / len(whole))
    copies = {name: (name, *(f"{name} copy {i}" for i in range(2, count + 1))) for name in whole}
    measured = time({copy: whole[name] for name, own in copies.items() for copy in own})
    ratios = [r.profiled_ms / measured.p25_ms(copies[f"reference {n}"]) for n, r in references.items()]
    return Among(
        measured=measured,
        copies={name: copies[name] for name in programs},
        speed=float(np.exp(np.log(ratios).mean())) if ratios else None,
    )
