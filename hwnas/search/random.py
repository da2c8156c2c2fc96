"""Random search: the baseline that every other strategy has to beat."""

from __future__ import annotations

import numpy as np

from hwnas.errors import InfeasibleBudget
from hwnas.search.problem import Problem
from hwnas.spaces import Codes

DRAWS = 100_000  # networks drawn at most: half a second of predictions


def search_random(problem: Problem, *, candidates: int, seed: int) -> Codes:
    """The best of `DRAWS` random networks within the budget: ``(at most candidates, variables)``.

    Raises:
        InfeasibleBudget: none of them keeps the budget, though some network does.
    """
    codes = draw_within(problem, DRAWS, seed=seed)
    order = np.argsort(-problem.accuracy(codes), kind="stable")
    return codes[order[:candidates]]


def draw_within(problem: Problem, networks: int, *, seed: int) -> Codes:
    """Distinct random networks within the budget, in the order drawn: ``(at most networks, variables)``.

    At most `DRAWS` are drawn, so that a tight budget ends the search rather than hanging it.

    Raises:
        InfeasibleBudget: none of them keeps the budget.
    """
    codes = problem.space.sample(DRAWS, seed=seed)
    codes = codes[problem.latency.predict(codes) <= problem.limit_ms]
    if not len(codes):
        _, fastest_ms = problem.decomposition.minimum(problem.latency.total)
        raise InfeasibleBudget(
            f"none of {DRAWS} random networks keeps {problem.budget_ms:.4g} ms, though the fastest network of "
            f"{problem.space.name} is predicted at {fastest_ms:.4g} ms: use --strategy exact",
            budget_ms=problem.budget_ms,
            fastest_ms=fastest_ms,
        )
    _, first = np.unique(codes, axis=0, return_index=True)
    return codes[np.sort(first)[:networks]]
