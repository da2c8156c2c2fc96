"""Which update of a training does what."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from hwnas.spaces import Space
from hwnas.supernet.config import Phase


@dataclass(frozen=True, slots=True)
class Step:
    """An update: its number, counted from 0, where it stands in its phase, and what the phase trains."""

    number: int
    phase: Phase
    begin: int
    space: Space

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to 0."""
        steps, done = self.phase.steps, self.number - self.begin
        warmup = round(self.phase.warmup * steps)
        if done < warmup:
            return self.phase.learning_rate * (done + 1) / warmup
        return self.phase.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (steps - warmup)))


class Schedule:
    """The updates of phases, one after the other, by their number.

    Args:
        phases: in their order.
        space: that they open parts of.
    """

    def __init__(self, phases: Sequence[Phase], space: Space) -> None:
        self._phases = phases
        self._begins = list(accumulate((phase.steps for phase in phases[:-1]), initial=0))
        self._spaces = [phase.open(space) for phase in phases]

    def __call__(self, number: int) -> Step:
        """An update, counted from 0."""
        at = bisect_right(self._begins, number) - 1
        return Step(number, self._phases[at], self._begins[at], self._spaces[at])
