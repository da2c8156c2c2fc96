"""Latency models without a table, estimated from a device's peak figures, for tests and dry runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from hwnas.errors import InvalidValue
from hwnas.latency.model import LatencyModel, plain_model
from hwnas.latency.sources import LatencySource, RooflineSource
from hwnas.lowering import form_of
from hwnas.plugins import load_object
from hwnas.spaces import Space
from hwnas.targets import Target


def roofline_source(space: Space, target: Target) -> LatencySource:
    """Roofline estimates of all ops of a space.

    Raises:
        SpecError: the device's file does not contain its peak figures, or the recipe has options.
    """
    from hwnas.lowering.work import works  # loads torch

    RooflineSource.peaks(target)  # rejects a device without them before the lowering, which takes seconds
    programs = form_of(target.recipe).lower_ops(space.distinct_ops)
    return RooflineSource(target, {op: works(program) for op, program in programs.items()})


def estimated_model(space: Space, target: Target) -> LatencyModel:
    """A model that sums a runtime's estimates over the slots (`RuntimeFacts.estimates`); it has no upper bound.

    Raises:
        InvalidValue: the runtime of the target's recipe has no estimates.
        SpecError: the device's file lacks figures that the estimates need.
    """
    estimates = target.recipe.facts.estimates
    if estimates is None:
        raise InvalidValue(
            f"{target.name} runs on {target.recipe.runtime}, which is measured; only a roofline recipe estimates"
        )
    source_of = cast("Callable[[Space, Target], LatencySource]", load_object(estimates))
    return plain_model(source_of(space, target), space)
