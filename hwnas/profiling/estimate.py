"""Latencies by arithmetic, for tests and dry runs: a model without a table, which says so wherever it is used."""

from __future__ import annotations

from hwnas.errors import InvalidValue
from hwnas.latency.model import LatencyModel
from hwnas.lowering import form_of
from hwnas.runtimes import open_session
from hwnas.spaces import Space
from hwnas.targets import Target


def estimated_model(space: Space, target: Target) -> LatencyModel:
    """The plain sum of the roofline estimates of a space's ops; it has no upper bound.

    Raises:
        InvalidValue: the target's recipe has another runtime than roofline.
        SpecError: the device's file does not give its peak figures.
    """
    if target.recipe.runtime != "roofline":
        raise InvalidValue(
            f"{target.name} runs on {target.recipe.runtime}, which is measured; only a roofline recipe estimates"
        )
    from hwnas.runtimes.roofline import RooflineSession  # loads torch

    cost_ms = {}
    for op, program in form_of(target.recipe).lower_ops(space.distinct_ops).items():
        with open_session(program, target.recipe) as session:
            assert isinstance(session, RooflineSession)
            cost_ms[op] = session.estimate(target.device).latency_ms
    total = space.slot_sum(lambda op: cost_ms[op])
    return LatencyModel(space=space, target=target.name, total=total, plain=total, fit=None, source="estimated")
