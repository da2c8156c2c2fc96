"""The latency model: a table's sum over slots, corrected for context.

Ops in a network run a little differently from ops alone: their input is in cache or not, the allocator has other
work, and each op timed alone pays for a call that a whole network pays for once. One factor for each group of slots
and one overhead for each op (negative where the calls weigh most) correct it:

    latency(arch) = Σ over slots where an op stands  (c[group of slot] · T[op of slot under arch] + c0)

They are fitted on a few whole networks by ridge regression on relative errors. Each factor is shrunk toward one
common scale, so that few networks suffice; how strongly is decided by leave-one-out cross-validation. A constant for
the network in place of `c0` for each op leaves twice the error on networks of a tenth of a millisecond, whose ops
cost little more than their calls; on networks of milliseconds the two do equally well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from hwnas.errors import InvalidValue, TableError
from hwnas.latency.manifest import Fit
from hwnas.latency.table import LatencyTable, profile_command
from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

_SHRINKAGE = tuple(float(s) for s in np.logspace(-5, 1, 13))
_OVERHEAD_SHRINKAGE = 1e-4  # a weak pull toward 0 settles what so few networks cannot tell


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Predicts latencies of a space's networks on a target.

    Attributes:
        space: the space whose codes it takes.
        target: name of the target.
        total: the corrected sum over slots, in milliseconds; what search and loss work on.
        plain: the sum of the table alone, in milliseconds.
        fit: the numbers of the correction.
    """

    space: Space
    target: str
    total: SlotSum
    plain: SlotSum
    fit: Fit

    def predict(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> latencies in milliseconds, ``(n,)``."""
        return self.total(codes)

    def margin(self, confidence: float = 0.95) -> float:
        """Share of the prediction that an upper bound adds to it.

        One-sided Student prediction bound from the relative errors of the calibration networks, each predicted by a
        model fitted on the others (Hahn and Meeker, "Statistical Intervals", section 4.8). Never below 0.

        Raises:
            InvalidValue: `confidence` is not between 0.5 and 1.
        """
        if not 0.5 <= confidence < 1:
            raise InvalidValue(f"a confidence lies between 0.5 and 1, not at {confidence}")
        n = self.fit.networks
        quantile = float(stats.t.ppf(confidence, n - 1))
        return max(0.0, self.fit.residual_mean + quantile * self.fit.residual_std * float(np.sqrt(1 + 1 / n)))

    def predict_upper(self, codes: Codes, confidence: float = 0.95) -> Floats:
        """Latencies that a measurement stays below with that confidence, in milliseconds: ``(n,)``.

        Raises:
            InvalidValue: `confidence` is not between 0.5 and 1.
        """
        return self.predict(codes) * (1 + self.margin(confidence))


def load_model(table: LatencyTable, space: Space) -> LatencyModel:
    """The model of a space from a table and the factors in its manifest.

    Raises:
        MissingOp: the table lacks an op of the space.
        TableError: no factors were fitted for the space.
    """
    table.require(space)
    fit = table.fit_for(space)
    if fit is None:
        raise TableError(
            f"the table of {table.target.name} has all ops of {space.name} but no context factors for it. "
            f"Fit them with: {profile_command(space, table.target)}"
        )
    groups = {slot.group for slot in space.slots}
    if set(fit.factors) != groups:
        raise TableError(
            f"the manifest of the table of {table.target.name} has context factors for {sorted(fit.factors)}, but "
            f"{space.name} has the groups {sorted(groups)}. Fit them anew with: {profile_command(space, table.target)}"
        )
    return _model(table, space, fit)


def check_networks(networks: int) -> None:
    """Check, before they are timed, that so many networks suffice for a fit.

    Raises:
        InvalidValue: fewer than 4.
    """
    if networks < 4:
        raise InvalidValue(f"context factors need at least 4 calibration networks (16 is usual), not {networks}")


def fit_model(table: LatencyTable, space: Space, codes: Codes, measured_ms: Floats, **record: object) -> Fit:
    """Fit the context factors.

    Args:
        table: holds every op of the space.
        space: the space.
        codes: calibration networks, ``(n, variables)``.
        measured_ms: their latencies, ``(n,)``.
        record: what else the manifest says of this fit: domain, seed, measurement.

    Raises:
        MissingOp: the table lacks an op.
        InvalidValue: fewer than 4 networks.
    """
    check_networks(len(codes))
    table.require(space)
    groups = list(dict.fromkeys(slot.group for slot in space.slots))
    plain = space.slot_sum(table.latency_ms)
    terms = plain.per_slot(codes)
    member = np.array([[slot.group == group for group in groups] for slot in space.slots], np.float64)
    sums, counts = terms @ member, (terms > 0).sum(axis=1).astype(np.float64)
    held_out = {shrinkage: _leave_one_out(sums, counts, measured_ms, shrinkage) for shrinkage in _SHRINKAGE}
    best = min(held_out, key=lambda shrinkage: float(np.abs(held_out[shrinkage]).mean()))
    overhead, factors = _ridge(sums, counts, measured_ms, best)
    return Fit.model_validate(
        {
            "networks": len(codes),
            "overhead_ms": overhead,
            "factors": dict(zip(groups, factors.tolist(), strict=True)),
            "residual_mean": float(held_out[best].mean()),
            "residual_std": float(held_out[best].std(ddof=1)),
            **record,
        }
    )


def _model(table: LatencyTable, space: Space, fit: Fit) -> LatencyModel:
    plain = space.slot_sum(table.latency_ms)
    arrays = tuple(
        np.where(array > 0, array * fit.factors[slot.group] + fit.overhead_ms, 0.0)
        for slot, array in zip(space.slots, plain.arrays, strict=True)
    )
    return LatencyModel(
        space=space, target=table.target.name, total=replace(plain, arrays=arrays), plain=plain, fit=fit
    )


def _ridge(sums: Floats, counts: Floats, measured_ms: Floats, shrinkage: float) -> tuple[float, Floats]:
    """Overhead an op (ms) and factors that minimise squared relative errors plus the pull toward one common scale.

    The unknowns are the common scale, each group's deviation from it (shrunk), and the overhead of all ops as a share
    the mean latency (weakly shrunk). A factor below a tenth of the scale has no physical meaning and is held there.

    Args:
        sums: milliseconds of each group of slots, ``(n, groups)``.
        counts: ops in each network, ``(n,)``.
        measured_ms: ``(n,)``.
        shrinkage: weight of the squared deviations.
    """
    n, g = sums.shape
    unit_ms = measured_ms.mean() / counts.mean()
    x = np.column_stack([sums.sum(axis=1), sums, counts * unit_ms]) / measured_ms[:, None]
    penalty = np.diag([0.0, *[n * shrinkage] * g, n * _OVERHEAD_SHRINKAGE])
    solution = np.linalg.solve(x.T @ x + penalty, x.T @ np.ones(n))
    scale = solution[0]
    return float(solution[-1] * unit_ms), np.maximum(scale + solution[1:-1], scale / 10)


def _leave_one_out(sums: Floats, counts: Floats, measured_ms: Floats, shrinkage: float) -> Floats:
    """Relative error, measured over predicted minus 1, of each network under a fit on the others."""
    errors = np.empty(len(sums))
    for i in range(len(sums)):
        others = np.arange(len(sums)) != i
        overhead, factors = _ridge(sums[others], counts[others], measured_ms[others], shrinkage)
        errors[i] = measured_ms[i] / (overhead * counts[i] + sums[i] @ factors) - 1
    return errors


def explain(model: LatencyModel, arch: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds of each slot of a network; they sum to the prediction."""
    [terms] = model.total.per_slot(model.space.encode([model.space.arch(arch)]))
    names = [slot.name for slot in model.space.slots]
    return {name: float(term) for name, term in zip(names, terms, strict=True) if term}
