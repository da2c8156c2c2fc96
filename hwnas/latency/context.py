"""Context terms: the effect of a network on the cost of its ops, fitted on a few whole networks.

Ops in a network run a little differently from isolated ops. A time of an isolated op includes a call, which a network
pays once, and conversions of its input and output to the runtime's layouts; and its weights stay in the caches between
runs, whereas a network fetches them again. So an op in a slot costs

    scale · T  +  (per op)  +  (per weight) · weights  +  (per value read, per value written) · values
               +  (deviation of its stage, or of its kind) · T

with T its time in the table. This is linear in slots, so the total is still a sum over slots. The deviations are shrunk
toward 0, i.e. each stage's factor toward the common scale (ridge regression on relative errors). Leave-one-out
cross-validation on the calibration networks chooses the strength, and whether deviations belong to stages, to kinds of
op, or to neither: in cells, a convolution next to another one avoids the layout conversions that it needs next to a
pooling. It takes the simplest choice whose error is within one standard error of the minimum (Breiman et al.,
"Classification and Regression Trees", 1984, section 3.4.3). So few networks suffice. (Deviations by kernel and
expansion were tried: 16 networks are too few to learn them, and cross-validation sometimes selected noise.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwnas.spaces import Codes, Op, Space

Floats = npt.NDArray[np.float64]

_SHRINKAGE = (math.inf, *(float(s) for s in np.logspace(1, -4, 11)))  # infinite: stages do not deviate
_PROBES = 1000
_WEAK = 1e-5  # pull toward 0 of the other terms: it makes the fit unique where few networks leave it undetermined
_STAGE, _KIND = "stage ", "kind "
_KINDS_PULL = 0.1  # relative to the pull on stages: a kind has a smaller share of a network, so its pull weighs more


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Terms and their prediction errors.

    Attributes:
        terms: name of a term -> its coefficient: milliseconds per op, per million weights or per million values, or a
            factor of the table's time.
        held_out: relative error (predicted over measured, minus 1) of each network with a fit on the others.
    """

    terms: dict[str, float]
    held_out: Floats


def features(group: str, op: Op, table_ms: float) -> dict[str, float]:
    """The features of an op in a group of slots: name of a term -> value."""
    return {
        "scale": table_ms,
        "ms per op": 1.0,
        "ms per million weights": op.params / 1e6,
        "ms per million values read": sum(map(math.prod, op.inputs)) / 1e6,
        "ms per million values written": math.prod(op.output) / 1e6,
        f"{_STAGE}{group}": table_ms,
        f"{_KIND}{op.kind}": table_ms,
    }


def cost_ms(terms: Mapping[str, float], group: str, op: Op, table_ms: float) -> float:
    """The milliseconds that an op adds to a network in a group of slots.

    The value may be negative: of ops that occur in every network, such as the stem, only the sum is identifiable.
    """
    return sum(terms.get(name, 0.0) * value for name, value in features(group, op, table_ms).items())


def fit_context(space: Space, table_ms: Mapping[Op, float], codes: Codes, measured_ms: Floats) -> Fitted:
    """Fit the terms.

    Args:
        space: the space.
        table_ms: milliseconds of each op of the space.
        codes: calibration networks, ``(n, variables)``.
        measured_ms: their latencies, ``(n,)``.

    Returns:
        Terms that predict a positive latency for the smallest network and for 1,000 random ones. With few networks and
        a busy machine the best terms may not; then the next best are returned, at last the scale alone.
    """
    names, x = _design(space, table_ms, codes)
    plain = [not name.startswith((_STAGE, _KIND)) for name in names]
    candidates = []  # the simplest first: the strongest pull
    for shrinkage in _SHRINKAGE:
        for deviations in _deviations(names, x) if math.isfinite(shrinkage) else [""]:
            kept = [i for i, name in enumerate(names) if plain[i] or (deviations and name.startswith(deviations))]
            own, part = [names[i] for i in kept], x[:, kept]
            errors = np.abs(held_out := _leave_one_out(own, part, measured_ms, shrinkage))
            terms = dict(zip(own, _ridge(own, part, measured_ms, shrinkage).tolist(), strict=True))
            candidates.append((float(errors.mean()), float(errors.std(ddof=1)), Fitted(terms=terms, held_out=held_out)))
    least, deviation, _ = min(candidates, key=lambda candidate: candidate[0])
    enough = least + deviation / math.sqrt(len(codes))
    candidates.sort(
        key=lambda candidate: max(candidate[0], enough)
    )  # stable: the simplest of the good ones comes first
    probes = np.concatenate([space.encode([space.smallest]), space.sample(_PROBES, seed=0)])
    for _, _, fitted in candidates:
        if _predicted(space, fitted.terms, table_ms, probes).min() > 0:
            return fitted
    part = x[:, [names.index("scale")]]
    [scale] = _ridge(["scale"], part, measured_ms, 0.0)
    held_out = _leave_one_out(["scale"], part, measured_ms, 0.0)
    return Fitted(terms={"scale": float(scale)}, held_out=held_out)


def _predicted(space: Space, terms: Mapping[str, float], table_ms: Mapping[Op, float], codes: Codes) -> Floats:
    """Latencies by the terms, in milliseconds: codes ``(n, variables)`` -> ``(n,)``."""
    return space.grouped_sum(lambda group, op: cost_ms(terms, group, op, table_ms[op]))(codes)


def _deviations(names: Sequence[str], x: Floats) -> list[str]:
    """Possible deviations: of stages, and of kinds if the shares of at least two vary between networks."""
    kinds = [i for i, name in enumerate(names) if name.startswith(_KIND)]
    return [_STAGE, _KIND] if (np.ptp(x[:, kinds], axis=0) > 0).sum() > 1 else [_STAGE]


def _design(space: Space, table_ms: Mapping[Op, float], codes: Codes) -> tuple[list[str], Floats]:
    """Names of the terms, and their features summed over each network: ``(n, terms)``."""
    sums: list[dict[str, float]] = []
    for arch in space.decode(codes):
        total: dict[str, float] = {}
        for slot, op in space.ops(arch):
            for name, value in features(slot.group, op, table_ms[op]).items():
                total[name] = total.get(name, 0.0) + value
        sums.append(total)
    names = list(dict.fromkeys(name for total in sums for name in total))
    return names, np.array([[total.get(name, 0.0) for name in names] for total in sums])


def _ridge(names: Sequence[str], x: Floats, measured_ms: Floats, shrinkage: float) -> Floats:
    """Coefficients that minimise squared relative errors plus the pulls toward 0.

    A deviation is a factor and is penalised directly; of the other terms, their share of the latency is penalised.
    """
    n = len(measured_ms)
    share = x.mean(axis=0) / measured_ms.mean()
    pulls = []
    for name, part in zip(names, share, strict=True):
        if name.startswith((_STAGE, _KIND)):
            pulls.append(shrinkage * (_KINDS_PULL if name.startswith(_KIND) else 1.0))
        else:
            pulls.append(0.0 if name == "scale" else _WEAK * part**2)
    relative = x / measured_ms[:, None]
    normal, wanted = relative.T @ relative + n * np.diag(pulls), relative.sum(axis=0)
    return np.asarray(np.linalg.lstsq(normal, wanted, rcond=None)[0])


def _leave_one_out(names: Sequence[str], x: Floats, measured_ms: Floats, shrinkage: float) -> Floats:
    errors = np.empty(len(measured_ms))
    for i in range(len(errors)):
        others = np.arange(len(errors)) != i
        errors[i] = x[i] @ _ridge(names, x[others], measured_ms[others], shrinkage) / measured_ms[i] - 1
    return errors
