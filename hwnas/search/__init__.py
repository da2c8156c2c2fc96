"""Search: the most accurate networks that keep a latency budget."""

from __future__ import annotations

from hwnas.errors import InvalidValue, UnknownName
from hwnas.search.exact import search_exact
from hwnas.search.problem import Candidate, Problem, check_budget_text, check_feasible, parse_budget
from hwnas.search.random import draw_within, search_random

__all__ = [
    "STRATEGIES",
    "Candidate",
    "Problem",
    "check_budget_text",
    "check_feasible",
    "draw_within",
    "parse_budget",
    "solve",
]

STRATEGIES = {"exact": search_exact, "random": search_random}


def solve(problem: Problem, strategy: str, *, candidates: int = 20, seed: int = 0) -> list[Candidate]:
    """The best networks of a problem.

    Args:
        problem: the space, what to maximise and the budget.
        strategy: a key of `STRATEGIES`.
        candidates: at most how many.
        seed: of the strategies that draw.

    Returns:
        networks that keep the budget, the most accurate by prediction first.

    Raises:
        UnknownName: there is no such strategy.
        InvalidValue: fewer than one candidate is asked for.
        InfeasibleBudget: no network keeps the budget; names the fastest one.
    """
    if strategy not in STRATEGIES:
        raise UnknownName("search strategy", strategy, STRATEGIES)
    if candidates < 1:
        raise InvalidValue(f"a search gives at least 1 candidate, not {candidates}")
    check_feasible(problem.latency, problem.budget_ms, problem.confidence)
    codes = STRATEGIES[strategy](problem, candidates=candidates, seed=seed)
    return problem.candidates(codes)
