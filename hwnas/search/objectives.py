"""Objectives: latency on a target, MACs, parameters, memory; and parsing of their budgets."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from hwnas.errors import InvalidValue, UnknownName
from hwnas.latency import LatencyModel
from hwnas.latency.table import TIMES_MS
from hwnas.spaces import SlotFunction, Space

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A cost to minimise or to limit.

    Attributes:
        name: name of a target, or a key of `RESOURCES`.
        unit: of its values, e.g. ``ms``.
        total: function from codes to its values.
        latency: its latency model, if it is a latency.
    """

    name: str
    unit: str
    total: SlotFunction
    latency: LatencyModel | None = None

    def margin(self, confidence: float | None) -> float:
        """Margin for the error of a prediction, as a share of it: 0 for exact costs.

        Raises:
            TableError: a confidence is set, but the latency model has no margin: its table was imported.
            InvalidValue: the confidence requires more bound networks than the profile has.
        """
        return 0.0 if confidence is None or self.latency is None else self.latency.margin(confidence)

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:.4g} {self.unit}".strip()


def latency_objective(model: LatencyModel) -> Objective:
    """The latency by a model, named after the target."""
    return Objective(name=model.target, unit="ms", total=model.total, latency=model)


def resource(space: Space, name: str) -> Objective:
    """MACs, parameters or memory of a space's networks.

    Raises:
        UnknownName: `name` is not in `RESOURCES`.
    """
    if name not in RESOURCES:
        raise UnknownName("objective", name, RESOURCES, "Latency is named by its target, device/recipe.")
    unit, total = RESOURCES[name]
    return Objective(name=name, unit=unit, total=total(space))


RESOURCES: dict[str, tuple[str, Callable[[Space], SlotFunction]]] = {
    "macs": ("", lambda space: space.macs),
    "params": ("", lambda space: space.params),
    "size_bytes": ("bytes", lambda space: space.slot_sum(lambda op: 4 * op.params)),
    "peak_activation_bytes": ("bytes", lambda space: space.slot_max(lambda op: 4 * op.activations)),
}

_SCALE = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_FORMS = (
    "a share of the largest network's (50%), or a positive number: 0.8 or 0.8ms of latency, 300M of macs, 4MB of size"
)


def check_budget_text(text: str) -> tuple[float, str]:
    """The number and the unit of a budget: ``ms``, ``%``, or a scale such as ``M``, optionally with ``B`` for bytes.

    Raises:
        InvalidValue: not a positive, finite number in one of the forms of `parse_budget`.
    """
    match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*(ms|%|[KMG]?B?)\s*", text)
    try:
        value = float(match[1]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value) or value <= 0:
        raise InvalidValue(f"a budget must be {_FORMS}; not {text!r}")
    return value, match[2]


def parse_budget(text: str, objective: Objective, space: Space) -> float:
    """A budget in the objective's unit, from text.

    ``0.8`` and ``0.8ms`` are latencies, ``300M`` counts, ``4MB`` bytes, ``50%`` is a share of the largest network's
    prediction.

    Raises:
        InvalidValue: not a positive, finite number in one of these forms, the unit of another objective, or a latency
            beyond those of tables.
    """
    value, unit = check_budget_text(text)
    [largest] = objective.total(space.encode([space.largest]))
    if unit == "%":
        budget = value / 100 * float(largest)
    elif unit == "ms" or objective.unit == "ms":
        if unit not in ("", "ms") or objective.unit != "ms":
            raise InvalidValue(f"{text!r} is not a budget of {objective.name}: it must be {_FORMS}")
        budget = value
    else:
        if unit.endswith("B") and objective.unit != "bytes":
            raise InvalidValue(f"{text!r} is not a budget of {objective.name}, which is a number, not bytes")
        budget = value * _SCALE[unit.removesuffix("B")]
    # A run's figures only accept latencies in the range of tables, and would fail at the end.
    if budget > (most := TIMES_MS[1] if objective.unit == "ms" else sys.float_info.max):
        raise InvalidValue(f"the budget {text!r} of {objective.name} must be at most {most:g}")
    if budget > largest:
        log.warning(
            "the budget of %s for %s is more than the largest network's prediction of %s",
            objective.text(budget),
            objective.name,
            objective.text(float(largest)),
        )
    return budget
