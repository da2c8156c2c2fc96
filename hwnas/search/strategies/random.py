"""Random search: the baseline for other strategies."""

from __future__ import annotations

import numpy as np

from hwnas.search.problem import Problem
from hwnas.search.strategies.base import Archive, Outcome, StrategyOptions
from hwnas.spaces import Codes

EVALUATIONS = 100_000
_AT_ONCE = 10_000


def search_random(problem: Problem, options: StrategyOptions) -> Outcome:
    """The best of random networks within the budgets."""
    archive, total, stopped = Archive(problem, options.candidates), options.evaluations or EVALUATIONS, False
    while archive.evaluations < total and not stopped:
        count = min(_AT_ONCE, total - archive.evaluations)
        archive.score(problem.space.sample(count, seed=(problem.seed, 0, archive.evaluations)))
        options.progress("scoring random networks", archive.evaluations, total)
        stopped = options.stop()
    return Outcome(codes=archive.best, proved=False, stopped=stopped, evaluations=archive.evaluations)


def draw_within(problem: Problem, networks: int) -> Codes:
    """Distinct random networks within the budgets, in the order drawn: ``(at most networks, variables)``.

    At most `EVALUATIONS` are drawn, so that the search ends with a tight budget, too; the result may be empty.
    """
    codes = problem.space.sample(EVALUATIONS, seed=(problem.seed, 0))
    codes = codes[problem.excess(codes) == 0]
    _, first = np.unique(codes, axis=0, return_index=True)
    drawn: Codes = codes[np.sort(first)[:networks]]
    return drawn
