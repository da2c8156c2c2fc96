"""Exact search: the best networks within a budget, by merging the Pareto fronts of independent parts.

For each value of the held variables the parts (stages) are enumerated. Going backwards, the Pareto fronts of latency
and accuracy of the last part, the last two, and so on are merged: what a merge drops is dominated whatever the other
parts hold, so each front is that of all assignments of its parts, without approximation. Going forwards, the choices of
the parts behind us have an exact bound: their accuracy plus the best that the front of the parts ahead can add within
what is left of the budget. The k best networks begin with choices among the k best by that bound, at every part, so
no more need to be kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwnas.search.problem import Problem
from hwnas.spaces import Codes

Floats = npt.NDArray[np.float64]
Front = tuple[Floats, Floats]  # latencies ascending, accuracies ascending

_ROUNDING = 1e-12  # share of the limit by which sums in another order may differ; the result is checked without it


def search_exact(problem: Problem, *, candidates: int, seed: int) -> Codes:
    """The networks of the highest predicted accuracy within the budget: ``(at most candidates, variables)``.

    Args:
        problem: feasible.
        candidates: at most how many.
        seed: not used: nothing is drawn.

    Returns:
        distinct networks, the best first; none of the space within the budget is better than the last of them.
    """
    found = [_best(problem, condition, candidates) for condition in problem.decomposition.conditions()]
    codes = problem.space.canonical(np.concatenate(found))
    codes = codes[problem.latency.predict(codes) <= problem.limit_ms]
    codes = codes[np.argsort(-problem.accuracy(codes), kind="stable")]
    # A held variable that does not matter leads to the same network at each of its values.
    _, first = np.unique(codes, axis=0, return_index=True)
    return codes[np.sort(first)[:candidates]]


def _best(problem: Problem, condition: Codes, k: int) -> Codes:
    """The k best networks under a condition: ``(at most k, variables)``."""
    parts = problem.decomposition
    base_ms, latencies = parts.part_values(problem.latency.total, condition)
    base, accuracies = parts.part_values(problem.accuracy, condition)
    limit_ms = problem.limit_ms * (1 + _ROUNDING)
    ahead = _fronts_ahead(latencies, accuracies, limit_ms - base_ms)
    ms, accuracy, codes = np.array([base_ms]), np.array([base]), condition[None]
    for part_ms, part_accuracy, part_codes, front in zip(latencies, accuracies, parts.codes, ahead, strict=True):
        ms, accuracy = ((a[:, None] + b[None]).reshape(-1) for a, b in ((ms, part_ms), (accuracy, part_accuracy)))
        bound = accuracy + _best_within(front, limit_ms - ms)
        best = np.argsort(-bound, kind="stable")[:k]
        best = best[np.isfinite(bound[best])]
        row, column = np.divmod(best, len(part_codes))
        ms, accuracy, codes = ms[best], accuracy[best], codes[row] + part_codes[column]
    return codes


def _fronts_ahead(latencies: list[Floats], accuracies: list[Floats], spare_ms: float) -> list[Front]:
    """For each part, the front of all parts after it, as far as they fit into `spare_ms`."""
    front: Front = (np.zeros(1), np.zeros(1))
    fronts = [front]
    for ms, accuracy in zip(latencies[:0:-1], accuracies[:0:-1], strict=True):
        own = _pareto(ms, accuracy)
        sums = [(a[:, None] + b[None]).reshape(-1) for a, b in zip(own, front, strict=True)]
        fits = sums[0] <= spare_ms
        front = _pareto(sums[0][fits], sums[1][fits])
        fronts.append(front)
    return fronts[::-1]


def _best_within(front: Front, spare_ms: Floats) -> Floats:
    """The best accuracy on a front within each of these latencies; minus infinity where nothing fits."""
    latency, accuracy = front
    index = np.searchsorted(latency, spare_ms, side="right") - 1
    if not len(latency):
        return np.full(len(spare_ms), -np.inf)
    return np.where(index >= 0, accuracy[index], -np.inf)


def _pareto(cost: Floats, gain: Floats) -> Front:
    """The points that no other beats in both (less cost, more gain), by ascending cost."""
    order = np.lexsort((-gain, cost))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(gain[order])[:-1]])
    order = order[gain[order] > best_before]
    return cost[order], gain[order]
