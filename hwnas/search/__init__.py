"""Search: the most accurate networks within budgets, and whole Pareto fronts of accuracy and cost.

``hwnas.search(...)`` is the use case `hwnas.workflows.search`; this package contains its parts.
"""

from __future__ import annotations

from hwnas.lazy import callable_as
from hwnas.search.feasible import check_feasible
from hwnas.search.objectives import Objective, latency_objective, parse_budget, resource
from hwnas.search.problem import Candidate, Problem
from hwnas.search.solver import FRONTS, STRATEGIES, Found, find_front, solve, strategy_names
from hwnas.search.strategies.random import draw_within

__all__ = [
    "FRONTS",
    "STRATEGIES",
    "Candidate",
    "Found",
    "Objective",
    "Problem",
    "check_feasible",
    "draw_within",
    "find_front",
    "latency_objective",
    "parse_budget",
    "resource",
    "solve",
    "strategy_names",
]

callable_as(__name__, "hwnas.workflows", "search")
