"""Transfer between latency tables: the tables of a space as sources, and the table of a new target."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwnas.errors import InvalidValue, TableError, some
from hwnas.latency.context import cost_ms
from hwnas.latency.manifest import Fit, Manifest
from hwnas.latency.model import load_model
from hwnas.latency.table import LatencyTable, Row, check_origin, merged
from hwnas.latency.transfer.choice import Choice
from hwnas.latency.transfer.fitting import Posterior
from hwnas.latency.transfer.known import Floats, Known, Measured, Source
from hwnas.latency.transfer.terms import op_terms
from hwnas.latency.whole import WholeNetworks, plausible
from hwnas.spaces import Codes, Domain, Space
from hwnas.targets import Target

FEWEST = 3  # measurements: a level and two deviations
SCORES = 199  # of the bound: a confidence of up to 0.995
_NETWORKS = 500  # to which the scales of the priors refer

log = logging.getLogger(__name__)


def common_space(tables: Sequence[LatencyTable], space: Space) -> Space:
    """The space that most tables were fitted on, of those that contain `space`; `space` itself if there is none.

    A transfer is checked on the sources' measured networks, and few of them are networks of a restricted space.
    """
    fits = [found for table in tables if (found := table.fit_for(space)) is not None]
    domains = Counter(found.domain.model_dump_json() for found in fits)
    if not domains:
        return space
    [(most, _)] = domains.most_common(1)
    return Domain.model_validate_json(most).make()


def known_of(tables: Sequence[LatencyTable], space: Space, *, option: str = "--from") -> Known:
    """The sources of a transfer: measured and imported tables that have all ops of a space.

    The cost of an op is that in the table's model, with its context terms; of an op in several groups of slots, the
    mean.

    Args:
        tables: the tables.
        space: the space.
        option: of the command line that names the tables, for messages.

    Raises:
        TableError: no table has the ops of the space.
        InvalidValue: a target occurs twice.
    """
    sources, lacking = [], []
    for table in tables:
        if table.origin == "transferred":
            lacking.append(f"{table.target.name}: it was transferred itself, so it adds nothing to its sources")
            continue
        try:
            table.require(space)
            load_model(table, space)
            sources.append(_source(table, space))
        except TableError as error:
            lacking.append(f"{table.target.name}: {error}")
    if not sources:
        raise TableError(
            f"no source shares the ops of {space.name}: "
            + (some(lacking, most=1) if lacking else "no table was found")
            + f". Choose tables of this space with {option} (`hwnas tables list` shows the spaces of each)"
        )
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise InvalidValue(f"a source is listed twice: {', '.join(names)}; list each target once with {option}")
    if lacking:
        log.warning(
            "%d tables cannot be sources for %s and are left out: %s", len(lacking), space.name, some(lacking, most=1)
        )
    if len({source.device for source in sources}) == 1 < len(sources):
        log.warning(
            "all sources are of the device %s: the transfer is checked by leaving out one recipe at a time, which says "
            "less about a new device",
            sources[0].device,
        )
        sources = [replace(source, device=source.name) for source in sources]
    kinds = tuple(op.kind for op in space.distinct_ops)
    networks = op_terms(space, space.sample(_NETWORKS, seed=0))
    return Known(sources=tuple(sources), kinds=kinds, networks=networks)


def _source(table: LatencyTable, space: Space) -> Source:
    found = table.fit_for(space)
    terms = found.terms if found else {"scale": 1.0}
    groups: dict[str, set[str]] = {}
    for slot in space.slots:
        for op in space.slot_ops(slot).flat:
            if op is not None:
                groups.setdefault(op.key, set()).add(slot.group)
    costs = [
        np.mean([cost_ms(terms, group, op, table.latency_ms(op)) for group in sorted(groups[op.key])])
        for op in space.distinct_ops
    ]
    return Source(
        name=table.target.name,
        device=table.target.device.name,
        cost_ms=np.array(costs),
        measured=None if found is None else _measured(found, space),
    )


def _measured(found: Fit, space: Space) -> Measured | None:
    """The networks of a fit that consist of ops of the space; None if there are none."""
    whole = found.domain.make()
    index = {op.key: i for i, op in enumerate(space.distinct_ops)}
    counts = op_terms(whole, found.networks())
    here = np.array([index.get(op.key, -1) for op in whole.distinct_ops])
    inside = counts[:, here < 0].sum(axis=1) == 0
    latency_ms = np.array([*found.calibration_ms, *found.bound_ms])
    inside = inside[: len(latency_ms)]
    if not inside.any():
        return None
    terms = np.zeros((len(inside), len(index)))
    terms[:, here[here >= 0]] = counts[: len(inside)][:, here >= 0]
    return Measured(terms=terms[inside], latency_ms=latency_ms[inside])


def checked(measured: WholeNetworks, known: Known, space: Space) -> WholeNetworks:
    """Measurements of a new target without those that failed; these are logged.

    Raises:
        InvalidValue: fewer than 3 are left, or their unit seems to be another one.
    """
    terms = op_terms(space, measured.codes)
    predicted = np.array([terms @ source.cost_ms for source in known.sources])
    kept = plausible(measured, predicted, "the sources suggest")
    if len(kept) < FEWEST:
        raise InvalidValue(
            f"{measured.name} has {len(kept)} usable measurements of different networks; a transfer needs at least "
            f"{FEWEST}, and 10 are usual. `hwnas tables next` chooses further networks to measure"
        )
    return kept


def transferred(
    known: Known, choice: Choice, measured: WholeNetworks, target: Target, old: LatencyTable | None = None
) -> tuple[LatencyTable, Posterior]:
    """The table of a new target, and its fit.

    Args:
        known: the sources.
        choice: of the method.
        measured: the measurements, checked.
        target: the new target.
        old: its transferred table, if there is one; its rows of other ops are kept.

    Raises:
        TableMismatch: the older table was not transferred.
    """
    check_origin(old, "transferred")
    space = measured.space
    networks = Measured(terms=op_terms(space, measured.codes), latency_ms=measured.latency_ms)
    posterior, best = choice.fit(known, networks)
    costs = posterior.cost_ms
    rows, terms = rows_of(space, costs, len(measured))
    all_rows, fits = merged(rows.items(), old)
    for lost in old.manifest.fits if old else ():
        if lost not in fits and lost.domain != Domain.of(space):
            log.warning(
                "the transfer of %s is dropped from the table of %s, because it has ops of %s, too; transfer it again "
                "into another folder with --tables, if you need both",
                lost.domain.space,
                target.name,
                space.name,
            )
    error = posterior.predict(networks.terms) / networks.latency_ms - 1
    facts: dict[str, str | int | float | bool] = {
        "statistic": "transferred",
        "sources": ", ".join(source.name for source in known.sources),
        "method": best.method.name,
        "scales": ", ".join(f"{sd:g}" for sd in (*best.scales.blocks, best.scales.noise)),
        "left_out_spearman": round(best.rank, 5),
        "left_out_mape": round(best.mape, 5),
        "measurements": measured.name,
        "measurements_sha256": measured.sha256,
        "networks": len(measured),
        "noise": round(posterior.noise, 5),
        "fitted_error": round(float(np.abs(error).mean()), 5),
    }
    manifest = Manifest.of_other_tables(target, "transferred", facts, fits)
    found = Fit(
        domain=Domain.of(space),
        seed=0,
        calibration_ms=measured.latency_ms.tolist(),
        terms=terms,
        held_out_mape=best.mape,
        scores=choice.margins(posterior.noise, SCORES),
        codes=measured.codes.tolist(),
        measurement=facts,
    )
    table = LatencyTable(target=target, rows=all_rows, manifest=manifest)
    return table.with_fit(found), posterior


def rows_of(space: Space, cost_ms: Floats, samples: int) -> tuple[dict[str, Row], dict[str, float]]:
    """Rows of a table from fitted costs of ops, and the terms with which the sums are those of the costs.

    Rows must be positive, but the cost of an op that is in every network may not be: the same number of milliseconds is
    added to every row, and subtracted per op by the terms. The sum is exact.

    Args:
        space: the space.
        cost_ms: of its distinct ops, ``(ops,)``.
        samples: number of measurements that they were fitted to.
    """
    offset = max(0.0, 1e-3 * float(np.abs(cost_ms).mean()) - float(cost_ms.min()))
    rows = {
        op.key: Row(latency_ms_p25=ms, latency_ms_p50=ms, latency_ms_p90=ms, samples=samples)
        for op, ms in zip(space.distinct_ops, (cost_ms + offset).tolist(), strict=True)
    }
    return rows, {"scale": 1.0, "ms per op": -offset}


def candidates(space: Space, whole: Space, count: int = 2000, *, seed: int = 0) -> tuple[Codes, Floats]:
    """Random networks that could be measured.

    Args:
        space: that they are drawn from.
        whole: a space that contains it (`common_space`).
        count: of draws.
        seed: of the draws.

    Returns:
        their codes in `whole`, ``(n, variables)``, each once, and their terms ``(n, ops)``.
    """
    codes = whole.encode(space.decode(np.unique(space.sample(count, seed=seed), axis=0)))
    return codes, op_terms(whole, codes)
