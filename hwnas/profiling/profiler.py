"""Profiling: times every op of a space on a target, and fits the context terms on whole networks."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hwnas.errors import InvalidValue, TableMismatch
from hwnas.latency.context import fit_context
from hwnas.latency.manifest import Fit, Manifest
from hwnas.latency.model import load_model
from hwnas.latency.table import LatencyTable, Row, check_origin, merged
from hwnas.lowering.networks import assembled, lower_ops, scratch
from hwnas.machines import LocalMachine, Machine
from hwnas.profiling.steady import steadily
from hwnas.progress import Progress, silent
from hwnas.spaces import Codes, Domain, Space
from hwnas.spaces.draws import distinct
from hwnas.targets import Target
from hwnas.targets.device import other_machine
from hwnas.timing import Measurement
from hwnas.timing.measurement import latencies_ms, worse_ms
from hwnas.timing.protocol import Protocols, usual

CALIBRATION_SEED = 20_260

log = logging.getLogger(__name__)


def profile(
    space: Space,
    target: Target,
    *,
    journals: Path,
    old: LatencyTable | None = None,
    networks: int = 16,
    bound_networks: int = 24,
    only_missing: bool = False,
    machine: Machine | None = None,
    protocols: Protocols | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """Measure a space on a target and fit its latency model.

    Args:
        space: every distinct op of it is timed.
        target: its device must be the machine.
        journals: folder for the journals of the measurements; after a kill, the same call resumes from them.
        old: a table of the same target; rows that are not measured again are kept.
        networks: number of calibration networks, on which the context terms are fitted.
        bound_networks: number of further networks, whose errors determine upper bounds; n of them allow a confidence of
            up to ``n / (n + 1)``.
        only_missing: time only the ops that the old table lacks; if it lacks none and has a fit, it is returned.
        machine: the machine on which ops and networks are timed; the present host if None.
        protocols: for ops and networks; the defaults if None.
        progress: callback, invoked after every visit.

    Raises:
        InvalidValue: there are fewer than 4 calibration networks, or the space has too few networks.
        TableError: the target's device is not the machine.
        TableMismatch: the old table was imported, or measured with another version of the runtime, or on a machine
            that reports other facts.
        RuntimeUnavailable: the runtime cannot run here.
        TooNoisy: the figures cannot be trusted; no table is created.
        OutputError: the journal, or the program of a network in the same folder, cannot be written.
        OutOfMemory: not even one network fits into memory.
    """
    machine, protocols = machine or LocalMachine(), protocols or usual()
    machine.check(target)
    check_origin(old, "measured")
    codes = calibration_codes(space, networks, bound_networks)
    versions = machine.versions(target)
    _check_version(old, target, versions)
    _check_machine(old, target, machine)
    domain = Domain.of(space)
    subject = {
        "target": target.name,
        "recipe": target.recipe.hash,
        "versions": versions,
        "domain": domain.model_dump(),
    }
    known = old.rows if old and only_missing else {}
    wanted = [op for op in space.distinct_ops if op.key not in known]
    if old and only_missing and not wanted and old.fit_for(space):
        return old
    needed = {op: None for arch in space.decode(codes) for _, op in space.ops(arch)} | dict.fromkeys(wanted)
    form = machine.form(target.recipe)
    programs = lower_ops(space, list(needed), form, progress)
    measurement: dict[str, str | int | float | bool] = old.manifest.measurement if old else {}
    rows: dict[str, Row] = {}
    if wanted:
        timed = steadily(
            {op.key: form.tied(programs[op]) for op in wanted},
            machine,
            target,
            protocols.ops,
            journals / "ops.jsonl",
            {**subject, "ops": [op.key for op in wanted]},
            reference=max(wanted, key=lambda op: op.macs).key,
            what="timing ops",
            progress=progress,
        )
        rows = {key: _row(timed, key) for key in timed.samples_ms}
        measurement = {**timed.summary()}
    all_rows, fits = merged(rows.items(), old)
    manifest = Manifest.model_validate(
        {
            "device": target.device.name,
            "recipe": target.recipe.name,
            "device_fingerprint": target.device.fingerprint,
            "recipe_hash": target.recipe.hash,
            "csv_sha256": "",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "host": machine.facts(target),
            "versions": versions,
            "measurement": measurement,
            "fits": [fit.model_dump() for fit in fits],
        }
    )
    table = LatencyTable(target=target, rows=all_rows, manifest=manifest)
    with scratch(journals / "programs") as folder:
        whole = assembled(space, form, codes, programs, folder)
        del programs
        timed = steadily(
            whole,
            machine,
            target,
            protocols.networks,
            journals / "networks.jsonl",
            {**subject, "codes": codes.tolist()},
            what="timing networks",
            progress=progress,
        )
    return table.with_fit(_fit(table, space, codes, networks, timed))


def _check_version(old: LatencyTable | None, target: Target, versions: Mapping[str, str]) -> None:
    runtime = target.recipe.runtime
    before = old.manifest.versions.get(runtime, "of unknown version") if old else versions[runtime]
    if before != versions[runtime]:
        raise TableMismatch(
            f"the table of {target.name} was measured with {runtime} {before}, and {versions[runtime]} is installed: "
            "their rows are not mixed. --replace drops the old table, --tables with another folder keeps both"
        )


def _check_machine(old: LatencyTable | None, target: Target, machine: Machine) -> None:
    differences = other_machine(old.manifest.host, machine.host()) if old and target.device.kind == "cpu" else []
    if differences:
        raise TableMismatch(
            f"the table of {target.name} was measured on another machine ({'; '.join(differences)}): their rows are "
            "not mixed. Give this one a name of its own with `hwnas devices detect --save --name "
            f"{target.device.name}-2`; --replace drops the table, --tables with another folder keeps both"
        )


def _fit(table: LatencyTable, space: Space, codes: Codes, networks: int, timed: Measurement) -> Fit:
    """The context terms, fitted on the first `networks` codes, with the errors on the others."""
    measured_ms = latencies_ms(timed)
    table_ms = {op: table.latency_ms(op) for op in space.distinct_ops}
    fitted = fit_context(space, table_ms, codes[:networks], measured_ms[:networks])
    fit = Fit(
        domain=Domain.of(space),
        seed=CALIBRATION_SEED,
        calibration_ms=measured_ms[:networks].tolist(),
        terms=fitted.terms,
        held_out_mape=float(np.abs(fitted.held_out).mean()),
        scores=[],
        measurement={**timed.summary()},
    )
    predicted_ms = load_model(table.with_fit(fit), space).predict(codes[networks:])
    bound_ms = worse_ms(timed)[networks:]
    scores = np.sort(bound_ms / predicted_ms - 1)
    return fit.model_copy(update={"scores": scores.tolist(), "bound_ms": bound_ms.tolist()})


def calibration_codes(space: Space, networks: int, bound_networks: int = 0, *, seed: int = CALIBRATION_SEED) -> Codes:
    """The networks that a profile times: distinct random ones; the context is fitted on the first `networks`.

    The smallest and the largest network are included only by chance: as outliers, they would pull the fit away from the
    others (the weights of the largest may not fit into a cache), and a search rarely returns either.

    Raises:
        InvalidValue: there are fewer than 4 calibration networks, or the space has too few networks.
    """
    if networks < 4:
        raise InvalidValue(f"context terms need at least 4 calibration networks (16 is usual), not {networks}")
    count = networks + bound_networks
    if space.size < count:
        raise InvalidValue(
            f"{space.name} has {space.size} networks under these restrictions; {networks} calibration networks and "
            f"{bound_networks} bound networks cannot be drawn. Ask for fewer, or leave more choices"
        )
    return distinct(space, count, seed=seed)


def _row(measured: Measurement, key: str) -> Row:
    p25, p50, p90 = (measured.quantile_ms(key, q, steady=True) for q in (0.25, 0.5, 0.9))
    samples = sum(map(len, measured.samples_ms[key]))
    return Row(latency_ms_p25=p25, latency_ms_p50=p50, latency_ms_p90=p90, samples=samples)
