"""Feasibility of budgets, and which of them are infeasible."""

from __future__ import annotations

import itertools

import numpy as np

from hwnas.errors import InfeasibleBudget
from hwnas.search.exact.front import Losses, exact_front, least
from hwnas.search.objectives import Objective
from hwnas.search.problem import Constraints
from hwnas.spaces import Codes


def check_feasible(wanted: Constraints) -> None:
    """Check that each budget, and each pair of budgets, is feasible, from the costs alone.

    Raises:
        InfeasibleBudget: no network is within one budget (with the network of the lowest cost), or within two of them
            together.
        TableError: a confidence is set, but a latency model has no margin: its table was imported.
    """
    for objective in wanted.budgeted:
        code, lowest = least(wanted.space, objective.total)
        if lowest > wanted.limit(objective):
            raise _alone(wanted, objective, code, lowest)
    for a, b in itertools.combinations(wanted.budgeted, 2):
        limits = (wanted.limit(a), wanted.limit(b))
        front = exact_front(wanted.space, Losses((a.total, b.total), (np.inf, np.inf)))
        assert front is not None
        points = np.stack([a.total(front), b.total(front)], axis=1)
        if not (points <= limits).all(axis=1).any():
            raise _contradiction(wanted, a, b, points[points[:, 0] <= limits[0], 1].min())


def together(wanted: Constraints) -> InfeasibleBudget:
    """The error for budgets that are pairwise feasible but, as a search proved, not all together."""
    listing = ", ".join(o.text(wanted.budgets[o.name]) + f" {_on(o)}" for o in wanted.budgeted)
    return InfeasibleBudget(
        f"no network of {wanted.space.name} is within all of these budgets, although any two are feasible: {listing}. "
        "Raise one of them",
        objectives=tuple(wanted.budgets),
    )


def _alone(wanted: Constraints, objective: Objective, code: Codes, lowest: float) -> InfeasibleBudget:
    # Rounded up: the figure is shown with few digits, and must suffice as a budget.
    needed = lowest * (1 + objective.margin(wanted.confidence)) * 1.001
    budget, [arch] = wanted.budgets[objective.name], wanted.space.decode(code[None])
    values = ", ".join(f"{name}={value}" for name, value in wanted.space.describe(arch).items())
    return InfeasibleBudget(
        f"no network of {wanted.space.name} is within {objective.text(budget)} {_on(objective)}. The "
        f"{'fastest' if objective.latency else 'smallest'} is predicted at {objective.text(lowest)} and needs a budget "
        f"of {objective.text(needed)} ({_held(wanted)}): {values}",
        objectives=(objective.name,),
        lowest=lowest,
        arch=arch,
    )


def _contradiction(wanted: Constraints, a: Objective, b: Objective, lowest: float) -> InfeasibleBudget:
    needed = lowest * (1 + b.margin(wanted.confidence)) * 1.001
    budget_a, budget_b = wanted.budgets[a.name], wanted.budgets[b.name]
    return InfeasibleBudget(
        f"the budgets {a.text(budget_a)} {_on(a)} and {b.text(budget_b)} {_on(b)} contradict each other: every network "
        f"of {wanted.space.name} within the first needs at least {b.text(needed)} {_on(b)} ({_held(wanted)})",
        objectives=(a.name, b.name),
        lowest=lowest,
    )


def _on(objective: Objective) -> str:
    return f"on {objective.name}" if objective.latency else f"of {objective.name}"


def _held(wanted: Constraints) -> str:
    return "without a margin" if wanted.confidence is None else f"at {wanted.confidence:.0%} confidence"
