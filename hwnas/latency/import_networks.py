"""Import of whole-network latencies that were measured elsewhere: costs of ops are fitted to them.

Nobody timed the ops. Their costs are ridge regression on relative errors, toward costs in proportion to MACs plus a
constant per op; cross-validation chooses the pull, and its errors are the scores of the upper bound.
"""

from __future__ import annotations

import numpy as np

from hwnas.errors import InvalidValue
from hwnas.latency.manifest import Fit, Manifest
from hwnas.latency.table import LatencyTable, check_origin, merged
from hwnas.latency.transfer.known import Floats, Measured, fit_costs
from hwnas.latency.transfer.tables import SCORES, rows_of
from hwnas.latency.transfer.terms import op_terms
from hwnas.latency.whole import WholeNetworks
from hwnas.spaces import Domain, Space
from hwnas.targets import Target

FEWEST = 10  # networks: five folds of two
KEPT = 200  # networks in the manifest; a transfer from this table is checked on them
_FOLDS = 5
_PULLS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # per network


def networks_table(measured: WholeNetworks, target: Target, old: LatencyTable | None = None) -> LatencyTable:
    """The table of a target from measured whole networks.

    Args:
        measured: the networks.
        target: the target that they were measured on.
        old: an imported table of the same target; its rows of other ops are kept.

    Raises:
        TableMismatch: the older table was not imported.
        InvalidValue: there are fewer than 10 networks.
    """
    check_origin(old, "imported")
    if len(measured) < FEWEST:
        raise InvalidValue(
            f"{measured.name} has {len(measured)} networks; an import needs at least {FEWEST}. From fewer, and the "
            "tables of other targets, `hwnas tables transfer` makes a table"
        )
    space = measured.space
    networks = Measured(terms=op_terms(space, measured.codes), latency_ms=measured.latency_ms)
    toward = _by_macs(space, networks)
    pull, held_out = _cross_validated(networks, toward)
    costs = fit_costs(networks, pull=pull * len(measured), toward=toward)
    rows, terms = rows_of(space, costs, len(measured))
    all_rows, fits = merged(rows.items(), old)
    kept = np.random.default_rng(0).permutation(len(measured))[:KEPT]
    facts: dict[str, str | int | float | bool] = {
        "statistic": "fitted to whole networks",
        "imported_from": "networks",
        "networks": len(measured),
        "pull": pull,
        "repeated": measured.repeated,
        "disagreement": round(measured.disagreement, 5),
        f"sha256-{measured.sha256}": measured.name,
    }
    manifest = Manifest.of_other_tables(target, "imported", facts, fits)
    fit = Fit(
        domain=Domain.of(space),
        seed=0,
        calibration_ms=measured.latency_ms[kept].tolist(),
        terms=terms,
        held_out_mape=float(np.abs(1 / (1 + held_out) - 1).mean()),
        scores=np.quantile(held_out, np.linspace(0, 1, min(len(held_out), SCORES))).tolist(),
        codes=measured.codes[kept].tolist(),
        measurement=facts,
    )
    return LatencyTable(target=target, rows=all_rows, manifest=manifest).with_fit(fit)


def _by_macs(space: Space, networks: Measured) -> Floats:
    """Costs in proportion to MACs plus their mean, with the level of the measurements, ``(ops,)``."""
    macs = np.array([op.macs for op in space.distinct_ops], np.float64)
    costs = macs + macs.mean()
    return np.asarray(costs * np.median(networks.latency_ms / (networks.terms @ costs)))


def _cross_validated(networks: Measured, toward: Floats) -> tuple[float, Floats]:
    """The pull with the smallest error, and its relative errors: measured over predicted, minus 1, ``(n,)``."""
    count = len(networks.latency_ms)
    fold = np.random.default_rng(0).permutation(count) % _FOLDS
    best: tuple[float, float, Floats] | None = None
    for pull in _PULLS:
        predicted = np.empty(count)
        for i in range(_FOLDS):
            inside = networks.at(np.flatnonzero(fold != i))
            costs = fit_costs(inside, pull=pull * len(inside.latency_ms), toward=toward)
            predicted[fold == i] = networks.terms[fold == i] @ costs
        error = networks.latency_ms / np.maximum(predicted, 1e-3 * networks.latency_ms) - 1
        size = float(np.abs(1 / (1 + error) - 1).mean())
        if best is None or size < best[0]:
            best = (size, pull, error)
    assert best is not None
    return best[1], best[2]
