"""The schedule of a training: phase, space and learning rate of each update."""

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
    """An update: its number, counted from 0, its phase, the first update of the phase, and the space trained."""

    number: int
    phase: Phase
    begin: int
    space: Space

    @property
    def learning_rate(self) -> float:
        """Learning rate: linear warm-up, then cosine decay to 0."""
        steps, done = self.phase.steps, self.number - self.begin
        warmup = round(self.phase.warmup * steps)
        if done < warmup:
            return self.phase.learning_rate * (done + 1) / warmup
        return self.phase.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (steps - warmup)))


class Schedule:
    """The updates of consecutive phases, by number.

    Args:
        phases: in the order of training.
        space: the space of which each phase opens a part.
    """

    def __init__(self, phases: Sequence[Phase], space: Space) -> None:
        self._phases = phases
        self._begins = list(accumulate((phase.steps for phase in phases[:-1]), initial=0))
        self._spaces = [phase.open(space) for phase in phases]

    def __call__(self, number: int) -> Step:
        """Return an update by its number, counted from 0."""
        at = bisect_right(self._begins, number) - 1
        return Step(number, self._phases[at], self._begins[at], self._spaces[at])
