"""The latency model: a table's sum over slots, corrected for context, and the upper bound of measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue, TableError
from hwnas.latency.context import cost_ms
from hwnas.latency.manifest import Fit
from hwnas.latency.sources import LatencySource, Origin
from hwnas.latency.table import LatencyTable, profile_command
from hwnas.spaces import Codes, SlotSum, Space, Value

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts the latencies of a space's networks on a target.

    Attributes:
        space: the space of the codes.
        target: name of the target.
        total: the corrected sum over slots, in milliseconds, used by searches and losses.
        plain: the sum of the table alone, in milliseconds.
        fit: the numbers of the correction; None if no whole networks were measured. `total` is then `plain`.
        source: of the latencies of ops: measured by hwnas, imported, or estimated.
    """

    space: Space
    target: str
    total: SlotSum
    plain: SlotSum
    fit: Fit | None
    source: Origin = "measured"

    def predict(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> latencies in milliseconds, ``(n,)``."""
        return self.total(codes)

    def margin(self, confidence: float = 0.95) -> float:
        """The margin of the upper bound, as a fraction of the prediction; below 0 if all predictions were too high.

        Split conformal prediction (Vovk et al. 2005; Lei et al., "Distribution-Free Predictive Inference for
        Regression", 2018, section 2): the ``ceil((n + 1) * confidence)``-th smallest of the relative errors of n
        networks that the fit did not use. For any distribution, a new network stays below the bound with at least that
        probability, if it is measured under the same conditions.

        Raises:
            InvalidValue: `confidence` is not between 0.5 and 1, or requires more bound networks.
            TableError: ops were imported or estimated, and never calibrated on whole networks.
        """
        if not 0.5 <= confidence < 1:
            raise InvalidValue(f"the confidence must be between 0.5 and 1, not {confidence}")
        if self.fit is None:
            raise TableError(
                f"the latencies of {self.target} were {self.source} and never calibrated on whole networks, so its "
                "predictions have no upper bound. Search with --no-margin (in Python: confidence=None): the budget "
                "then applies to the prediction itself, the plain sum over ops"
            )
        scores = self.fit.scores
        rank = math.ceil((len(scores) + 1) * confidence - 1e-9)
        if rank > len(scores):
            highest = len(scores) / (len(scores) + 1)
            needed = bound_networks_for(confidence)
            raise InvalidValue(
                f"a confidence of {confidence:g} requires {needed} bound networks, but the table of {self.target} has "
                f"{len(scores)}, which allow at most {math.floor(highest * 1000) / 1000:g}. For more, profile again "
                f"with --bound-networks {needed}"
            )
        return scores[rank - 1]

    def predict_upper(self, codes: Codes, confidence: float = 0.95) -> Floats:
        """Upper bounds of measured latencies with that confidence, in milliseconds: ``(n,)``.

        Raises:
            InvalidValue: `confidence` is not between 0.5 and 1, or requires more bound networks.
            TableError: ops were imported or estimated, and never calibrated.
        """
        return self.predict(codes) * (1 + self.margin(confidence))


def bound_networks_for(confidence: float) -> int:
    """Number of bound networks that a confidence requires: the smallest n with ``ceil((n + 1) * confidence) <= n``."""
    return math.ceil((confidence - 1e-9) / (1 - confidence))


def load_model(table: LatencyTable, space: Space) -> LatencyModel:
    """The model of a space from a table and the fit in its manifest.

    An imported table has no fit: the model is then its plain sum, without an upper bound.

    Raises:
        MissingOp: the table lacks an op of the space.
        TableError: the table was measured or transferred but has no fit for the space.
    """
    table.require(space)
    fit = table.fit_for(space)
    if fit is None and table.manifest.origin == "transferred":
        raise TableError(
            f"the table of {table.target.name} was transferred for another space than {space.name}. Transfer it for "
            f"this one with: hwnas tables transfer --space {space.name} --target {table.target.name}"
        )
    if fit is None and table.manifest.origin == "measured":
        raise TableError(
            f"the table of {table.target.name} has all ops of {space.name} but no context terms for it. "
            f"Fit them with: {profile_command(space, table.target, table.folder)}"
        )
    plain = plain_model(table, space)
    if fit is None:
        return plain
    terms = fit.terms
    total = space.grouped_sum(lambda group, op: cost_ms(terms, group, op, table.latency_ms(op)))
    return replace(plain, total=total, fit=fit)


def plain_model(source: LatencySource, space: Space) -> LatencyModel:
    """The sum over slots of a source's latencies, without context terms and without an upper bound.

    Raises:
        MissingOp: the source lacks an op of the space.
    """
    plain = space.slot_sum(source.latency_ms)
    return LatencyModel(
        space=space, target=source.target.name, total=plain, plain=plain, fit=None, source=source.origin
    )


def slot_latencies(model: LatencyModel, arch: Mapping[str, Value]) -> dict[str, float]:
    """Milliseconds of each slot of a network; they sum to the prediction."""
    [terms] = model.total.per_slot(model.space.encode([model.space.arch(arch)]))
    names = [slot.name for slot in model.space.slots]
    return {name: float(term) for name, term in zip(names, terms, strict=True) if term}
