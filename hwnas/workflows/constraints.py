"""The problem of `hwnas search` from its options: targets, budgets, one network or several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.errors import InfeasibleBudget, InvalidValue, SpecError, TableError, UnknownName, some
from hwnas.search import Objective, check_feasible, latency_objective, parse_budget, resource
from hwnas.search.objectives import RESOURCES
from hwnas.search.problem import Constraints
from hwnas.spaces import Space
from hwnas.targets import Target, resolve_target, targets_of, this_device
from hwnas.workflows import inputs

_ALL_RECIPES = "/*"


def check_one_recipe(target: str | None, who: str) -> None:
    """Reject ``device/*`` for a search with one recipe.

    Args:
        target: ``device/recipe``, if any.
        who: subject and verb of the message, e.g. ``a study is for``.

    Raises:
        InvalidValue: the target is every recipe of a device.
    """
    if target is not None and target.endswith(_ALL_RECIPES):
        device = target.removesuffix(_ALL_RECIPES)
        names = [f"{device}/{each.recipe.name}" for each in targets_of(device)]
        raise InvalidValue(f"{who} one recipe, not for --target {target}; use one of: {some(names)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The constraints of a search.

    Attributes:
        constraints: label -> budgets of one network: one entry, or one for each target of a family or each recipe.
        targets: name -> the targets among all objectives.
        skipped: target -> why it is left out of a choice among recipes.
        choice: whether the entries are recipes to choose from.
    """

    constraints: dict[str, Constraints]
    targets: dict[str, Target]
    skipped: dict[str, str]
    choice: bool


def asked(
    space: Space, budgets: list[str], target: str | None, *, tables: Path | None, family: bool, confidence: float | None
) -> Asked:
    """The constraints from ``--budget``, ``--target``, ``--family`` and ``--confidence``.

    Raises:
        InvalidValue, UnknownName: a budget or a target is malformed or duplicate.
        TableError: a target has no table, or it lacks the space.
        InfeasibleBudget: no network is within the budgets.
    """
    if target is not None and target.endswith(_ALL_RECIPES):
        if family:
            raise InvalidValue(
                f"--target {target} chooses one recipe, --family finds a network for each budget; use one of them"
            )
        return _all_recipes(space, budgets, target, tables, confidence)
    named = [_named(text, target) for text in budgets]
    objectives, targets = list[Objective](), dict[str, Target]()
    for name, _ in named:
        objective, resolved = _objective(space, name, tables)
        if objective.name in [other.name for other in objectives]:
            raise InvalidValue(f"there are two budgets for {objective.name}: {', '.join(budgets)}; use one")
        objectives.append(objective)
        if resolved:
            targets[objective.name] = resolved
    whole = Constraints(
        space=space,
        objectives=tuple(objectives),
        budgets={o.name: parse_budget(text, o, space) for o, (_, text) in zip(objectives, named, strict=True)},
        confidence=confidence,
    )
    each = {o.name: replace(whole, objectives=(o,), budgets={o.name: whole.budgets[o.name]}) for o in objectives}
    constraints = each if family else {", ".join(each): whole}
    for one in constraints.values():
        check_feasible(one)
    return Asked(constraints=constraints, targets=targets, skipped={}, choice=False)


def _named(text: str, target: str | None) -> tuple[str, str]:
    """Name and value of a budget; without a name it belongs to the target."""
    name, sign, value = text.rpartition("=")
    if sign:
        if not name.strip():
            raise InvalidValue(f"the budget {text!r} has no name before its '='; write device/recipe=4ms or macs=3M")
        return name.strip(), value
    if target is None:
        raise InvalidValue(f"the budget {text!r} has no name: write device/recipe={text}, or use --target")
    return target, text


def _objective(space: Space, name: str, tables: Path | None) -> tuple[Objective, Target | None]:
    if "/" not in name:
        if name not in RESOURCES:
            raise UnknownName("objective", name, RESOURCES, "Latency is named by its target, device/recipe.")
        return resource(space, name), None
    target = resolve_target(name)
    return latency_objective(inputs.latency_model(target, tables, space)), target


def _all_recipes(space: Space, budgets: list[str], target: str, tables: Path | None, confidence: float | None) -> Asked:
    """A problem for each recipe of a device whose table covers the space."""
    if len(budgets) != 1 or "=" in budgets[0] or "%" in budgets[0]:
        raise InvalidValue(
            f"--target {target} needs one budget in milliseconds for every recipe, such as --budget 0.8ms "
            f"(a share of the largest network would differ between recipes); not {', '.join(budgets)}"
        )
    device = target.partition("/")[0]
    if not device:
        raise InvalidValue(f"--target {target} has no device before the '/'; 'this/*' is every recipe of this host")
    constraints, targets, skipped = dict[str, Constraints](), dict[str, Target](), dict[str, str]()
    for resolved in targets_of(device):
        try:
            objective = latency_objective(inputs.latency_model(resolved, tables, space))
            objective.margin(confidence)
        except (TableError, SpecError, InvalidValue) as error:  # a missing or broken table, or no margin: try others
            skipped[resolved.name] = str(error)
            continue
        one = Constraints(
            space=space,
            objectives=(objective,),
            budgets={objective.name: parse_budget(budgets[0], objective, space)},
            confidence=confidence,
        )
        try:
            check_feasible(one)
        except InfeasibleBudget as error:
            skipped[resolved.name] = str(error)
            continue
        targets[objective.name] = resolved
        constraints[objective.name] = one
    if not constraints:
        name = this_device().name if device == "this" else device
        reasons = "; ".join(skipped.values()) or "none has a recipe of its kind"
        raise InfeasibleBudget(
            f"no recipe of {name} has a table that covers {space.name} and a network within {budgets[0]}: {reasons}",
            objectives=tuple(skipped),
        )
    return Asked(constraints=constraints, targets=targets, skipped=skipped, choice=True)
