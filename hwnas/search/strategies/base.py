"""Arguments and results of strategies, and the archive of the best networks for heuristics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hwnas.progress import Progress, never, silent
from hwnas.search.problem import Problem
from hwnas.spaces import Codes

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
_LEAST = 10  # smallest population: smaller ones lose their diversity

_CROSSED = 0.9  # share of the children with two parents
_CHANGES = 1.0  # average number of mutated variables of a child


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOptions:
    """Settings of a strategy's run.

    Attributes:
        candidates: largest number of networks to return.
        evaluations: largest number of networks to score; None for the strategy's default.
        start: initial networks, ``(n, variables)``, for strategies that improve networks.
        progress: callback, invoked during the search.
        stop: polled regularly; when it returns True, the strategy returns the best so far.
    """

    candidates: int
    evaluations: int | None = None
    start: Codes | None = None
    progress: Progress = silent
    stop: Callable[[], bool] = never


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a strategy.

    Attributes:
        codes: networks within the budgets, the best first; ``(n, variables)``.
        proved: whether it is proved that no other network of the space is better by the accuracy model.
        stopped: whether it was stopped early.
        evaluations: number of individually scored networks.
    """

    codes: Codes
    proved: bool
    stopped: bool
    evaluations: int


Strategy = Callable[[Problem, StrategyOptions], Outcome]


@dataclass(slots=True)
class Archive:
    """Scores networks of a problem, counts them, and keeps the best distinct ones within the budgets.

    Attributes:
        problem: the problem.
        size: number of networks to keep.
        evaluations: number of scored networks.
    """

    problem: Problem
    size: int
    evaluations: int = 0
    _codes: Codes = field(init=False)
    _accuracies: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._codes = np.zeros((0, len(self.problem.space.variables)), np.uint8)
        self._accuracies = np.zeros(0)

    def score(self, codes: Codes) -> tuple[Floats, Floats]:
        """Accuracies and constraint violations (`Problem.excess`) of canonical codes: ``(n,)`` each."""
        self.evaluations += len(codes)
        accuracies, excess = self.problem.accuracy(codes), self.problem.excess(codes)
        full = len(self._codes) == self.size
        better = (excess == 0) & (accuracies > (self._accuracies[-1] if full else -np.inf))
        if better.any():
            self._keep(codes[better], accuracies[better])
        return accuracies, excess

    @property
    def best(self) -> Codes:
        """The kept networks, the best first: ``(at most size, variables)``."""
        return self._codes

    def _keep(self, codes: Codes, accuracies: Floats) -> None:
        both = np.concatenate([self._codes, codes])
        values = np.concatenate([self._accuracies, accuracies])
        _, first = np.unique(both, axis=0, return_index=True)
        order = first[np.argsort(-values[first], kind="stable")][: self.size]
        self._codes, self._accuracies = both[order], values[order]


def population(most: int, total: int, start: Codes | None = None) -> int:
    """Size of the initial population: a tenth of the evaluations, so that most evaluations improve on others.

    Args:
        most: largest initial population.
        total: largest number of evaluations.
        start: given initial networks, which are all included.
    """
    given = 0 if start is None else len(start)
    return min(max(min(most, total // 10), min(most, given), _LEAST), total)


def ranking(accuracies: Floats, excess: Floats) -> Floats:
    """Scalar fitness from the results of `Archive.score`.

    Within the budgets it is the accuracy; above them it is lower than any accuracy and decreases with the constraint
    violation, which leads a population back.
    """
    return np.where(excess > 0, -1e30 * (1 + excess), accuracies)


def children(problem: Problem, mothers: Codes, fathers: Codes, rng: np.random.Generator) -> Codes:
    """A mutated child of each mother and father, ``(n, variables)``, as genes: values without effect are kept.

    They take effect again if a child's stage is deeper. Most children inherit each variable from a random parent, the
    others all of them from the mother.
    """
    crossed = rng.random((len(mothers), 1)) < _CROSSED
    mixed = np.where(crossed & (rng.random(mothers.shape) < 0.5), fathers, mothers)
    return mutate(problem, mixed, _CHANGES, rng)


def mutate(problem: Problem, codes: Codes, changes: float, rng: np.random.Generator) -> Codes:
    """Copies with mutated variables, each with probability ``changes / variables``, but at least one.

    Variables with one value are unchanged.
    """
    counts = np.array([len(v.values) for v in problem.space.variables])
    [free] = np.nonzero(counts > 1)
    out = codes.copy()
    if len(free):
        hit = rng.random((len(codes), len(free))) < changes / len(free)
        hit[np.arange(len(codes)), rng.integers(len(free), size=len(codes))] = True
        other = 1 + (rng.random(hit.shape) * (counts[free] - 1)).astype(np.uint8)  # offset to another value
        out[:, free] = np.where(hit, (out[:, free] + other) % counts[free], out[:, free]).astype(np.uint8)
    return out
