"""What a network's context does to its ops: a few terms, fitted on a few whole networks.

Ops in a network run a little differently from ops alone. Timed alone, an op pays for a call that a whole network pays
for once, and its weights and images stay in the caches from run to run; in a network they are fetched anew. So an op
in a slot costs

    scale · T  +  (per op)  +  (per weight) · weights  +  (per value) · values read and written
               +  (deviation of its stage) · T  +  (deviations of its traits, such as its kernel) · T

with T its time in the table. All of it is linear in slots, so the sum stays one. The deviations are shrunk toward 0,
that is, each factor toward the common scale (ridge regression on relative errors). Leave-one-out cross-validation on
the calibration networks decides how strongly, and which groups have a deviation at all (none, stages, or stages and
traits): the simplest choice whose error is within one standard error of the least (Breiman et al., "Classification and
Regression Trees", 1984, section 3.4.3). So few networks suffice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwnas.spaces import Codes, Op, Space

Floats = npt.NDArray[np.float64]

_SHRINKAGE = tuple(float(s) for s in np.logspace(1, -5, 13))
_WEAK = 1e-5  # pull toward 0 of the terms that are no deviations: it settles what so few networks cannot tell
_GROUPINGS = ((), ("stage",), ("stage", "trait"))
_LEAST = 0.1  # of its time in the table that an op costs in any context


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Terms and how well they predict.

    Attributes:
        terms: name of a term -> its coefficient; milliseconds an op, a million weights or a million values, or a factor
            of the table's time.
        held_out: relative error, predicted over measured minus 1, of each network under a fit on the others.
    """

    terms: dict[str, float]
    held_out: Floats


def features(group: str, op: Op, table_ms: float, grouping: Sequence[str]) -> dict[str, float]:
    """What the terms multiply for an op in a group of slots: name of a term -> value."""
    values = {
        "scale": table_ms,
        "ms per op": 1.0,
        "ms per million weights": op.params / 1e6,
        "ms per million values": (math.prod(op.input) + math.prod(op.output)) / 1e6,
    }
    if "stage" in grouping:
        values[f"stage {group}"] = table_ms
    if "trait" in grouping:
        values |= {f"trait {trait}": table_ms for trait in op.traits}
    return values


def cost_ms(terms: Mapping[str, float], group: str, op: Op, table_ms: float) -> float:
    """What an op costs in a group of slots; never less than a tenth of its time in the table."""
    values = features(group, op, table_ms, ("stage", "trait"))
    return max(_LEAST * table_ms, sum(terms.get(name, 0.0) * value for name, value in values.items()))


def fit_context(space: Space, table_ms: Mapping[Op, float], codes: Codes, measured_ms: Floats) -> Fitted:
    """Fit the terms.

    Args:
        space: the space.
        table_ms: milliseconds of each op of these networks.
        codes: calibration networks, ``(n, variables)``.
        measured_ms: their latencies, ``(n,)``.
    """
    candidates = []  # the simplest first: fewer groups, then a stronger pull
    for grouping in _GROUPINGS:
        design = _design(space, table_ms, codes, grouping)
        for shrinkage in _SHRINKAGE if grouping else _SHRINKAGE[:1]:
            errors = np.abs(held_out := _leave_one_out(design, measured_ms, shrinkage))
            candidates.append((float(errors.mean()), float(errors.std(ddof=1)), held_out, design, shrinkage))
    least, deviation, *_ = min(candidates, key=lambda candidate: candidate[0])
    enough = least + deviation / math.sqrt(len(codes))
    _, _, held_out, design, shrinkage = next(c for c in candidates if c[0] <= enough)
    terms = _ridge(design, measured_ms, shrinkage).tolist()
    return Fitted(terms=dict(zip(design.names, terms, strict=True)), held_out=held_out)


@dataclass(frozen=True, slots=True)
class _Design:
    """Networks as counts of ops in their groups of slots.

    Attributes:
        names: of the terms.
        counts: how often each op stands in each network, ``(networks, ops)``.
        features: what the terms multiply for each op, ``(ops, terms)``.
        least_ms: what each op costs at least, ``(ops,)``.
    """

    names: list[str]
    counts: Floats
    features: Floats
    least_ms: Floats

    def of(self, rows: npt.NDArray[np.bool_]) -> _Design:
        """The design of some of the networks."""
        return _Design(self.names, self.counts[rows], self.features, self.least_ms)

    def predict(self, terms: Floats) -> Floats:
        """Latencies of the networks in milliseconds, ``(networks,)``: `cost_ms` summed over ops."""
        return np.asarray(self.counts @ np.maximum(self.features @ terms, self.least_ms))


def _design(space: Space, table_ms: Mapping[Op, float], codes: Codes, grouping: Sequence[str]) -> _Design:
    networks = [[(slot.group, op) for slot, op in space.ops(arch)] for arch in space.decode(codes)]
    column = {place: i for i, place in enumerate(dict.fromkeys(place for places in networks for place in places))}
    counts = np.zeros((len(networks), len(column)))
    for row, places in enumerate(networks):
        for place in places:
            counts[row, column[place]] += 1
    values = [features(group, op, table_ms[op], grouping) for group, op in column]
    names = list(dict.fromkeys(name for found in values for name in found))
    return _Design(
        names=names,
        counts=counts,
        features=np.array([[found.get(name, 0.0) for name in names] for found in values]),
        least_ms=_LEAST * np.array([table_ms[op] for _, op in column]),
    )


def _ridge(design: _Design, measured_ms: Floats, shrinkage: float) -> Floats:
    """Coefficients that minimise squared relative errors plus the pulls toward 0.

    A deviation is a factor and is pulled as it is; of the other terms, the share of the latency that they make is. Ops
    that would cost less than they may are held at that, and the rest is fitted again.
    """
    n = len(measured_ms)
    share = (design.counts @ design.features).mean(axis=0) / measured_ms.mean()
    pulls = []
    for name, part in zip(design.names, share, strict=True):
        deviation = name.startswith(("stage ", "trait "))
        pulls.append(0.0 if name == "scale" else shrinkage if deviation else _WEAK * part**2)
    held = np.zeros(len(design.least_ms), np.bool_)
    while True:
        x = design.counts[:, ~held] @ design.features[~held] / measured_ms[:, None]
        y = 1 - design.counts[:, held] @ design.least_ms[held] / measured_ms
        solution: Floats = np.linalg.lstsq(x.T @ x + n * np.diag(pulls), x.T @ y, rcond=None)[0]
        too_low = ~held & (design.features @ solution < design.least_ms)
        if not too_low.any():
            return solution
        held |= too_low


def _leave_one_out(design: _Design, measured_ms: Floats, shrinkage: float) -> Floats:
    errors = np.empty(len(measured_ms))
    for i in range(len(errors)):
        one = np.arange(len(errors)) == i
        terms = _ridge(design.of(~one), measured_ms[~one], shrinkage)
        errors[i] = design.of(one).predict(terms)[0] / measured_ms[i] - 1
    return errors
