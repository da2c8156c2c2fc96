"""Exact search: the whole Pareto front, by merging the fronts of independent parts.

For each value of the held variables, every part (a stage) is enumerated and only its Pareto set of latency and
accuracy is kept; the sets of two parts merge by sums, of which again only the Pareto set is kept. What a merge drops
is dominated whatever the other parts hold, so the result is the front of the whole space, without approximation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hwnas.search.problem import Problem
from hwnas.spaces import Codes

Floats = npt.NDArray[np.float64]


def search_exact(problem: Problem, *, candidates: int, seed: int) -> Codes:
    """The best networks on the exact Pareto front within the budget: ``(at most candidates, variables)``.

    The first is the optimum. The others are the next on the fronts of all values of the held variables, which differ
    from it by more than a runner-up with one block changed would.

    Args:
        problem: feasible.
        candidates: at most how many.
        seed: not used: nothing is drawn.
    """
    found: list[tuple[Floats, Floats, Codes]] = []
    for condition in problem.decomposition.conditions():
        latency, accuracy, codes = _front(problem, condition)
        found.append((latency, accuracy, codes))
    accuracy = np.concatenate([a for _, a, _ in found])
    codes = problem.space.canonical(np.concatenate([c for _, _, c in found]))
    codes = codes[np.argsort(-accuracy, kind="stable")]
    # A held variable that does not matter leads to the same network at each of its values.
    _, first = np.unique(codes, axis=0, return_index=True)
    return codes[np.sort(first)[:candidates]]


def _front(problem: Problem, condition: Codes) -> tuple[Floats, Floats, Codes]:
    """The Pareto front under a condition and within the budget: latencies, accuracies and codes."""
    parts = problem.decomposition
    base_ms, latencies = parts.part_values(problem.latency.total, condition)
    base, accuracies = parts.part_values(problem.accuracy, condition)
    # What the parts still to come need at least cannot be spent by those merged so far.
    spare_ms = problem.limit_ms - base_ms - sum(float(part.min()) for part in latencies)
    latency, accuracy, codes = np.array([base_ms]), np.array([base]), condition[None]
    for part_ms, part_accuracy, part_codes in zip(latencies, accuracies, parts.codes, strict=True):
        keep = _pareto(part_ms, part_accuracy)
        ms = (latency[:, None] + part_ms[keep][None]).reshape(-1)
        acc = (accuracy[:, None] + part_accuracy[keep][None]).reshape(-1)
        # `latency` holds the least of every part already merged, so the rest of the budget is spare + that least.
        least = float(latency.min(initial=np.inf) + part_ms.min())
        affordable = np.flatnonzero(ms <= least + spare_ms)
        best = affordable[_pareto(ms[affordable], acc[affordable])]
        row, column = np.divmod(best, len(keep))
        latency, accuracy, codes = ms[best], acc[best], codes[row] + part_codes[keep][column]
        if not len(codes):
            break
    return latency, accuracy, codes


def _pareto(cost: Floats, gain: Floats) -> npt.NDArray[np.intp]:
    """Indices of the points that no other beats in both (less cost, more gain), by ascending cost."""
    order = np.lexsort((-gain, cost))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(gain[order])[:-1]])
    return order[gain[order] > best_before]
