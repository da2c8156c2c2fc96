"""Search problems: the most accurate networks of a space within budgets."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue, UnknownName
from hwnas.search.exact.front import Losses
from hwnas.search.objectives import Objective
from hwnas.spaces import Arch, Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]
Accuracy = Callable[[Codes], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network from a search.

    Attributes:
        arch: the network.
        predicted_accuracy: by the accuracy model.
        costs: name of an objective -> its value, in the objective's unit.
    """

    arch: Arch
    predicted_accuracy: float
    costs: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Costs and budgets of a space's networks.

    Attributes:
        space: the networks to choose from.
        objectives: costs: latency on one or more targets, MACs, parameters, memory.
        budgets: name of an objective -> its upper limit, in its unit. Objectives without a budget only count
            in fronts.
        confidence: that the measured latency stays within a budget; the budget applies to the upper bound of the
            latency model at this confidence. None: the budget applies to the prediction itself, without a margin.

    Raises:
        InvalidValue: a budget is not positive; there are no objectives; two have the same name.
        UnknownName: a budget has the name of no objective.
    """

    space: Space
    objectives: tuple[Objective, ...]
    budgets: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        names = [objective.name for objective in self.objectives]
        if not names or len(set(names)) < len(names):
            raise InvalidValue(f"a search needs objectives with different names, not {', '.join(names) or 'none'}")
        for name, budget in self.budgets.items():
            if name not in names:
                raise UnknownName("objective", name, names, "A budget has the form name=value.")
            if not (budget > 0 and math.isfinite(budget)):
                raise InvalidValue(f"the budget of {name} must be a positive number, not {budget}")

    @property
    def budgeted(self) -> tuple[Objective, ...]:
        """The objectives with budgets."""
        return tuple(objective for objective in self.objectives if objective.name in self.budgets)

    def limit(self, objective: Objective) -> float:
        """The largest accepted prediction; infinity without a budget.

        Sums of the same terms in another order differ by rounding; a small tolerance (a millionth of a nanosecond per
        millisecond) accepts networks that meet the budget exactly.

        Raises:
            TableError: a confidence is set, but the latency model has no margin.
        """
        if objective.name not in self.budgets:
            return math.inf
        return self.budgets[objective.name] / (1 + objective.margin(self.confidence)) * (1 + 1e-12)

    @cached_property
    def held(self) -> Losses:
        """The objectives with budgets, and their largest accepted predictions."""
        return Losses(tuple(o.total for o in self.budgeted), tuple(self.limit(o) for o in self.budgeted))

    def costs(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> costs, ``(n, objectives)``."""
        return np.stack([objective.total(codes) for objective in self.objectives], axis=1)

    def fingerprint(self) -> str:
        """Hash of the costs of some networks: it distinguishes a new table from an older one of the same name."""
        costs = self.costs(self.space.sample(100, seed=0))
        return hashlib.sha256(np.round(costs, 9).tobytes()).hexdigest()

    def excess(self, codes: Codes) -> Floats:
        """Constraint violation: the sum of relative excesses over the budgets, ``(n,)``; 0 within all budgets."""
        if not self.budgets:
            return np.zeros(len(codes))
        shares: Floats = np.maximum(self.held(codes) / np.array(self.held.limits) - 1, 0).sum(axis=1)
        return shares


@dataclass(frozen=True, kw_only=True)
class Problem(Constraints):
    """Maximise accuracy within the budgets.

    Attributes:
        accuracy: codes ``(n, variables)`` -> accuracies ``(n,)``: an accuracy model, a `SlotSum`, or any function.
        seed: random seed.
    """

    accuracy: Accuracy
    seed: int = 0

    @classmethod
    def of(cls, constraints: Constraints, *, accuracy: Accuracy, seed: int = 0) -> Problem:
        """Constraints with an accuracy to maximise."""
        given = {name.name: getattr(constraints, name.name) for name in fields(constraints)}
        return cls(**given, accuracy=accuracy, seed=seed)

    @cached_property
    def additive(self) -> SlotSum | None:
        """The sum over slots with the same order as the accuracy; None if the accuracy is not such a function."""
        score = self.accuracy if isinstance(self.accuracy, SlotSum) else getattr(self.accuracy, "score", None)
        return score if isinstance(score, SlotSum) else None

    def require_additive(self, strategy: str) -> SlotSum:
        """`additive`, for a strategy that requires it.

        Raises:
            InvalidValue: the accuracy is not a sum over slots.
        """
        if self.additive is None:
            raise InvalidValue(
                f"{strategy} search needs an accuracy that is a sum over slots (a SlotSum, or a model whose score is "
                "one); for any other function use evolution, nsga2, local or random"
            )
        return self.additive

    def candidates(self, codes: Codes) -> list[Candidate]:
        """Codes ``(n, variables)`` -> candidates, in the same order."""
        names = [objective.name for objective in self.objectives]
        return [
            Candidate(arch=arch, predicted_accuracy=float(a), costs=dict(zip(names, map(float, row), strict=True)))
            for arch, a, row in zip(self.space.decode(codes), self.accuracy(codes), self.costs(codes), strict=True)
        ]
