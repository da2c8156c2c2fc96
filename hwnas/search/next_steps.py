"""The gain of larger budgets; `hwnas.latency.model.slot_latencies` shows where a network's milliseconds go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.search.objectives import Objective
from hwnas.search.problem import Candidate, Problem
from hwnas.search.solver import find_front
from hwnas.spaces import Space, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """A network of the front that costs more than the reference network.

    Attributes:
        budget: budget that it needs at the problem's confidence, in the objective's unit.
        gain: increase of its predicted accuracy, as a fraction.
        changes: variable -> value before and after; None if the variable has no effect.
    """

    budget: float
    gain: float
    changes: Mapping[str, tuple[Value | None, Value | None]]


def next_steps(problem: Problem, chosen: Candidate, objective: Objective, *, steps: int = 5) -> list[NextStep]:
    """The gain of larger budgets: networks of the exact front at increasing cost.

    Args:
        problem: with an additive accuracy model.
        chosen: the reference network.
        objective: the objective whose budget is raised; all other budgets are dropped.
        steps: largest number of networks, spread evenly along the front.

    Raises:
        InvalidValue: the accuracy is not additive.
    """
    alone = Problem(
        space=problem.space, accuracy=problem.accuracy, objectives=(objective,), confidence=None, seed=problem.seed
    )
    front = [
        c
        for c in find_front(alone).candidates
        if c.costs[objective.name] > chosen.costs[objective.name] and c.predicted_accuracy > chosen.predicted_accuracy
    ]
    found = []
    for k in range(min(steps, len(front))):
        other = front[round((k + 1) * len(front) / min(steps, len(front))) - 1]
        found.append(
            NextStep(
                budget=other.costs[objective.name] * (1 + objective.margin(problem.confidence)),
                gain=other.predicted_accuracy - chosen.predicted_accuracy,
                changes=_changes(problem.space, chosen.arch, other.arch),
            )
        )
    return found


def _changes(
    space: Space, before: Mapping[str, Value], after: Mapping[str, Value]
) -> dict[str, tuple[Value | None, Value | None]]:
    old, new = space.describe(before), space.describe(after)
    return {v.name: (old.get(v.name), new.get(v.name)) for v in space.variables if old.get(v.name) != new.get(v.name)}
