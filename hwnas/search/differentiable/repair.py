"""The most probable network that meets its target, found exactly.

The logarithm of a network's probability is a sum over variables, so `hwnas.search.exact.best` finds the network, with
log-probabilities in place of accuracies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hwnas.errors import InfeasibleBudget
from hwnas.latency.expectation import check_probabilities
from hwnas.progress import never
from hwnas.search.exact.best import best_networks
from hwnas.search.exact.front import Losses
from hwnas.search.feasible import check_feasible, together
from hwnas.search.problem import Constraints
from hwnas.spaces import Arch, Codes, SlotSum, Space

_CLOSE = 0.01  # window below the limit, if the limit itself is below the window of the target
_LEAST = 1e-30  # smallest probability: the logarithm of 0 would exclude a value, which only budgets may do

Limit = tuple[SlotSum, float]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """The network that is derived from probabilities.

    Attributes:
        arch: the most probable network within the budgets.
        probability: natural logarithm of its probability.
        costs: name of an objective -> its value for `arch`.
        argmax: the most probable network of all; the same if it meets the requirements.
        argmax_costs: name of an objective -> its value for `argmax`.
        near: whether `arch` is in the window below its target; a much faster network leaves budget unused. False if no
            network is in the window, and with several budgets.
    """

    arch: Arch
    probability: float
    costs: Mapping[str, float]
    argmax: Arch
    argmax_costs: Mapping[str, float]
    near: bool


def most_probable(
    wanted: Constraints,
    probabilities: Mapping[str, Tensor],
    *,
    window: float = 0.05,
    limits: Sequence[Limit] = (),
) -> Repaired:
    """The most probable network within the budgets and, if there is only one budget, near it.

    Args:
        wanted: the space and the budgets.
        probabilities: name of a variable -> probabilities of its values, ``(choices,)``.
        window: a network is near its target if it is at most this share below it: with the confidence of the budget, if
            there is such a network; otherwise by its prediction; otherwise relative to the limit that the confidence
            leaves of the target, at most 1% below this limit if the limit itself is below the window. If no network is
            near (latencies of cells have gaps), the share is doubled until there is one.
        limits: other sums over slots, each with its upper limit.

    Raises:
        UnknownName, InvalidValue: the probabilities do not match the variables of the space.
        InfeasibleBudget: no network is within the budgets and the other limits.
    """
    space = wanted.space
    check_repairable(wanted, limits)
    given = check_probabilities(space, probabilities)
    gain = log_probability(space, {name: p.detach().double().cpu().numpy() for name, p in given.items()})
    [argmax], _ = best_networks(space, gain, Losses((), ()), 1, stop=never)
    upper, lower = _upper(wanted, limits), _lower(wanted, window)
    found = argmax[None][:0]
    for limit in lower:
        losses = _both(upper, limit)
        found = argmax[None] if _keeps(argmax[None], losses) else best_networks(space, gain, losses, 1, stop=never)[0]
        if len(found):
            break
    assert len(found)  # `check_repairable` ensures it
    names = [objective.name for objective in wanted.objectives]
    costs = wanted.costs(np.concatenate([found, argmax[None]]))
    arch, best = space.decode(np.concatenate([found, argmax[None]]))
    return Repaired(
        arch=arch,
        probability=float(gain(found)[0]),
        costs=dict(zip(names, costs[0].tolist(), strict=True)),
        argmax=best,
        argmax_costs=dict(zip(names, costs[1].tolist(), strict=True)),
        near=_is_near(wanted, found, window),
    )


def check_repairable(wanted: Constraints, limits: Sequence[Limit] = ()) -> None:
    """Check, before a search, that at least one network is within all budgets and other limits.

    Args:
        wanted: the space and the budgets.
        limits: other sums over slots, each with its upper limit.

    Raises:
        InfeasibleBudget: there is no such network.
    """
    check_feasible(wanted)
    first = next((o.total for o in wanted.budgeted if isinstance(o.total, SlotSum)), None)
    if first is None:
        return
    cheapest, _ = best_networks(wanted.space, _negative(first), _upper(wanted, limits), 1, stop=never)
    if len(cheapest):
        return
    if not limits or not len(best_networks(wanted.space, _negative(first), wanted.held, 1, stop=never)[0]):
        raise together(wanted)
    raise InfeasibleBudget(
        f"every network of {wanted.space.name} within the budgets has a cell of which more than half is skip "
        "connections: raise the budgets, lift restrictions of the space, or set skip_guard = false",
        objectives=tuple(wanted.budgets),
    )


def log_probability(space: Space, probabilities: Mapping[str, Floats]) -> SlotSum:
    """The logarithm of a network's probability; variables that have no effect do not count."""
    axes: list[tuple[int, ...]] = []
    arrays: list[Floats] = []
    for i, variable in enumerate(space.variables):
        if variable.name not in probabilities:
            continue
        array = np.log(np.maximum(probabilities[variable.name], _LEAST))
        for one in reversed(space.conditions[i]):
            array = np.multiply.outer(one.matters.astype(np.float64), array)
        axes.append((*(one.column for one in space.conditions[i]), i))
        arrays.append(array)
    return SlotSum(constant=0.0, axes=tuple(axes), arrays=tuple(arrays))


def _upper(wanted: Constraints, limits: Sequence[Limit]) -> Losses:
    """The upper limits: of the budgets and of the other sums."""
    held = wanted.held
    return Losses((*held.functions, *(f for f, _ in limits)), (*held.limits, *(limit for _, limit in limits)))


def _lower(wanted: Constraints, window: float) -> list[Limit | None]:
    """Lower limits on the use of the only budget, from the narrowest to None, as negated sums with upper limits."""
    if len(wanted.budgeted) != 1:
        return [None]
    [objective] = wanted.budgeted
    total, budget, limit = objective.total, wanted.budgets[objective.name], wanted.limit(objective)
    if not isinstance(total, SlotSum):
        return [None]
    minus = _negative(total)
    lowest = budget * (1 - window)
    sure = lowest * (1 + max(objective.margin(wanted.confidence), 0.0))  # the margin for errors in the other direction
    # If the margin is wider than the window, no network is near the target with confidence: the nearest that are
    # accepted are those at the limit.
    tiers = (sure, lowest) if lowest < limit else (limit * (1 - _CLOSE),)
    leasts = [least for least in tiers if least < limit]
    while window < 1:
        leasts.append(limit * (1 - window))
        window *= 2
    return [*((minus, -least) for least in leasts), None]


def _is_near(wanted: Constraints, found: Codes, window: float) -> bool:
    """Whether a network, ``(1, variables)``, is at most a window below the limit of the only budget."""
    if len(wanted.budgeted) != 1:
        return False
    [objective] = wanted.budgeted
    return float(objective.total(found)[0]) >= wanted.limit(objective) * (1 - window)


def _negative(total: SlotSum) -> SlotSum:
    return SlotSum(constant=-total.constant, axes=total.axes, arrays=tuple(-array for array in total.arrays))


def _both(upper: Losses, lower: Limit | None) -> Losses:
    return upper if lower is None else Losses((*upper.functions, lower[0]), (*upper.limits, lower[1]))


def _keeps(codes: Codes, losses: Losses) -> bool:
    """Whether a network, ``(1, variables)``, is within all limits."""
    return all(float(f(codes)[0]) <= limit for f, limit in zip(losses.functions, losses.limits, strict=True))
