"""Profiling: every op of a space timed on a target, and the context factors fitted on whole networks."""

from __future__ import annotations

import datetime
import functools
import logging
import platform
import shutil
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hwnas.errors import InvalidValue, RuntimeUnavailable, TableError, TableMismatch
from hwnas.latency.context import fit_context
from hwnas.latency.manifest import Fit, Manifest
from hwnas.latency.model import Floats, load_model
from hwnas.latency.table import LatencyTable, Row, check_origin, merged
from hwnas.lowering import Program, form_of
from hwnas.progress import Progress, silent
from hwnas.runtimes import session_class
from hwnas.spaces import Codes, Domain, Op, Space
from hwnas.targets import RUNTIMES, Journal, Target, cpu_quota, detect_host
from hwnas.targets.device import Kind, other_machine
from hwnas.targets.host import gpu_state
from hwnas.targets.linux import text_of
from hwnas.timing import Measurement, Protocol, require_cores, time_programs
from hwnas.timing.memory import available_bytes

OPS = Protocol(min_sessions=3, max_sessions=10, max_seconds=25.0, tolerance=0.015)
# Runs that follow each other are slowed alike: of slow networks one run a visit, and more visits, tell more. Fast ones
# need some runs until they are as fast as they get. With all else the profile of a resolution takes two minutes.
NETWORKS = Protocol(
    visit_ms=6.0,
    min_runs=1,
    warmup_runs=1,
    min_sessions=2,
    max_sessions=16,
    max_seconds=55.0,
    tolerance=0.01,
)
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
    progress: Progress = silent,
) -> LatencyTable:
    """Measure a space on a target and fit its latency model.

    Args:
        space: every distinct op of it is timed.
        target: its device must be this host.
        journals: folder for the record of the measurement under way; after a kill, the same call goes on there.
        old: a table of the same target; rows that are not measured anew are kept.
        networks: calibration networks, which the context is fitted on.
        bound_networks: further networks, from whose errors upper bounds are read; n of them carry a confidence of up to
            ``n / (n + 1)``.
        only_missing: time only the ops that the older table lacks; where it lacks none and has a fit, it is returned.
        progress: told about each visit.

    Raises:
        InvalidValue: fewer than 4 calibration networks, or the space has not as many networks.
        TableError: the target's device is not this host.
        TableMismatch: the older table was imported, or measured with another version of the runtime, or on a machine
            that reports something else.
        RuntimeUnavailable: the runtime cannot run here.
        TooNoisy: the figures cannot be trusted; there is no table.
        OutputError: the journal, or a network's program beside it, cannot be written.
        OutOfMemory: the memory does not hold even one network.
    """
    check_host(target)
    check_origin(old, "measured")
    codes = calibration_codes(space, networks, bound_networks)
    versions = runtime_versions(target)
    _check_version(old, target, versions)
    _check_machine(old, target)
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
    programs = lower_ops(space, list(needed), target, progress)
    measurement: dict[str, str | int | float | bool] = old.manifest.measurement if old else {}
    rows: dict[str, Row] = {}
    if wanted:
        timed = _steadily(
            {op.key: form_of(target.recipe).tied(programs[op]) for op in wanted},
            target,
            OPS,
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
            "host": host_facts(target.device.kind, core=max(require_cores(target.recipe).cores, default=0)),
            "versions": versions,
            "measurement": measurement,
            "fits": [fit.model_dump() for fit in fits],
        }
    )
    table = LatencyTable(target=target, rows=all_rows, manifest=manifest)
    with scratch(journals / "programs") as folder:
        whole = assembled(space, target, codes, programs, folder)
        del programs
        timed = _steadily(
            whole,
            target,
            NETWORKS,
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
            "their rows are not mixed. --replace drops the old table, --tables DIR writes elsewhere"
        )


def _check_machine(old: LatencyTable | None, target: Target) -> None:
    differences = other_machine(old.manifest.host, detect_host()) if old and target.device.kind == "cpu" else []
    if differences:
        raise TableMismatch(
            f"the table of {target.name} was measured on another machine ({'; '.join(differences)}): their rows are "
            "not mixed. Give this one a name of its own with `hwnas devices detect --save --name NAME`; --replace "
            "drops the table, --tables DIR writes elsewhere"
        )


def _steadily(
    programs: Mapping[str, Program | Path],
    target: Target,
    protocol: Protocol,
    journal: Path,
    subject: Mapping[str, object],
    *,
    reference: str | None = None,
    what: str,
    progress: Progress,
) -> Measurement:
    """A measurement that can be resumed and that can be trusted; a noisy one is not resumed but taken anew."""
    how = {"protocol": asdict(protocol), "cores": require_cores(target.recipe).text}
    with Journal(journal, {**subject, **how}) as record:
        timed = time_programs(
            programs, target.recipe, protocol, reference=reference, journal=record, what=what, progress=progress
        )
    if timed.too_noisy:
        journal.unlink()
    timed.require_steady()
    return timed


def _fit(table: LatencyTable, space: Space, codes: Codes, networks: int, timed: Measurement) -> Fit:
    """The context fitted on the first so many networks, and its errors on the others."""
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
    scores = np.sort(worse_ms(timed)[networks:] / predicted_ms - 1)
    return fit.model_copy(update={"scores": scores.tolist()})


def calibration_codes(space: Space, networks: int, bound_networks: int = 0, *, seed: int = CALIBRATION_SEED) -> Codes:
    """The networks that a profile times: different random ones; the context is fitted on the first `networks`.

    The smallest and the largest are left to chance: far from all others, they would pull the fit away from those (the
    largest one's weights may fit no cache), and a search rarely ends at either.

    Raises:
        InvalidValue: fewer than 4 to fit on, or the space has not as many.
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


def distinct(space: Space, count: int, *, seed: int, without: Container[bytes] = ()) -> Codes:
    """So many different random networks; the space must have as many.

    Args:
        space: to draw from.
        count: rows of the result, ``(count, variables)``.
        seed: of the draw.
        without: bytes of codes that may not be among them.
    """
    rows: dict[bytes, Codes] = {}
    batch = 0
    while len(rows) < count:
        for row in space.sample(count, seed=(seed, batch)):
            if row.tobytes() not in without and len(rows) < count:
                rows.setdefault(row.tobytes(), row)
        batch += 1
    return np.stack(list(rows.values()))


def lower_ops(space: Space, ops: Sequence[Op], target: Target, progress: Progress = silent) -> Mapping[Op, Program]:
    """Ops of a space as programs of a target's runtime, for `assembled`."""
    progress("lowering", 0, len(ops), unit="ops")
    programs = form_of(target.recipe).lower_ops(ops, wired=space.wiring is not None)
    progress("lowering", len(ops), len(ops), unit="ops")
    return programs


def assembled(
    space: Space, target: Target, codes: Codes, programs: Mapping[Op, Program], folder: Path
) -> dict[str, Program | Path]:
    """Whole networks: codes ``(n, variables)`` -> n programs, named by their row.

    They are the ops' graphs wired together, which is the graph of the whole network's export. Those with weights of
    their own are files in the folder: 40 networks of mobilenetv3 would take 1 GiB of memory, once as graphs and once as
    the bytes that ONNX Runtime keeps of each.

    Raises:
        OutputError: a file cannot be written.
    """
    form = form_of(target.recipe)
    archs = space.decode(codes)
    found: dict[str, Program | Path] = {}
    for i, nodes in enumerate(map(space.network, archs)):
        if space.wiring is None:
            whole = form.assemble([programs[node.op] for node in nodes])
            found[str(i)] = form.spooled(whole, folder / str(i))
            continue
        before: Counter[Op] = Counter()
        parts = []
        for node in nodes:
            parts.append(form.another(programs[node.op], before[node.op]))
            before[node.op] += 1
        found[str(i)] = form.spooled(form.assemble(parts, [node.reads for node in nodes]), folder / str(i))
    return found


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the programs of a measurement: empty at first, even after a kill, and gone at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def latencies_ms(measured: Measurement) -> Floats:
    """p25 of each program, in milliseconds and in the order in which they were given: ``(n,)``."""
    return np.array([measured.p25_ms(name) for name in measured.samples_ms])


def worse_ms(measured: Measurement) -> Floats:
    """The larger of what the even and the odd sessions say of each program, in milliseconds: ``(n,)``.

    A bound is on what another measurement will say, and half of the sessions is the least of another measurement that
    there is; in the common figure, a part of the noise has cancelled out.
    """
    return np.asarray(measured.halves_ms.max(axis=0))


def check_host(target: Target) -> None:
    """Refuse to measure a device that is not this host, with more threads than cores, or with what is not measured.

    Raises:
        TableError: lists what differs.
        InvalidValue: this process does not have the cores that the recipe needs, or HWNAS_MEMORY_GIB is wrong.
        RuntimeUnavailable: the recipe's runtime estimates, or is not driven by hwnas.
    """
    if not RUNTIMES[target.recipe.runtime].measured:
        raise RuntimeUnavailable(
            f"a table is made of measurements, and nothing can be timed with {target.recipe.name} (runtime "
            f"{target.recipe.runtime}). Choose a recipe of a measured runtime, e.g. onnxruntime-cpu-fp32; a search "
            "takes roofline's estimates without a table"
        )
    held = require_cores(target.recipe)
    available_bytes()  # refuses a wrong HWNAS_MEMORY_GIB before half a minute of lowering
    differences = target.device.differences(detect_host())
    if differences:
        raise TableError(
            f"this host is not the device {target.device.name}: {'; '.join(differences)}. A table must be measured on "
            "its device; `this` stands for the device that matches this host."
        )
    if held.note:
        _say_once(f"{target.recipe.name} is timed on the cores {held.text}: {held.note}")


@functools.cache
def _say_once(words: str) -> None:
    """A warning that each of a job's stages would repeat."""
    log.warning(words)


def runtime_versions(target: Target) -> dict[str, str]:
    """Versions of what a measurement depends on."""
    runtime = session_class(target.recipe).version()
    return {
        "hwnas": version("hwnas"),
        target.recipe.runtime: runtime,
        **({"driver": gpu_state().get("driver_version", "unknown")} if target.device.kind == "gpu" else {}),
        "torch": version("torch"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def host_facts(kind: Kind, *, core: int = 0) -> dict[str, object]:
    """What a manifest says of the host: facts about its hardware and its clocks only; of its GPU, if that computes.

    Args:
        kind: what computes.
        core: logical core whose clock is meant: kinds of cores differ.
    """
    host = detect_host()
    facts: dict[str, object] = {"architecture": host.architecture, "cpu": host.cpu, "cores": host.cores}
    facts |= {name: value for name, value in (("core", host.core), ("board", host.board)) if value is not None}
    for name in ("scaling_governor", "scaling_max_freq"):
        # Virtual machines, and systems other than Linux, do not show their clock.
        facts[name] = text_of(Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq") / name) or "not shown by this system"
    if quota := cpu_quota():
        facts["quota_cores"] = round(quota.cores, 3)
    if kind == "gpu":
        facts |= {"gpus": list(host.gpus), **{f"gpu.{name}": value for name, value in gpu_state().items()}}
    return {**facts, "flags": list(host.flags)}


def _row(measured: Measurement, key: str) -> Row:
    p25, p50, p90 = (measured.quantile_ms(key, q, steady=True) for q in (0.25, 0.5, 0.9))
    samples = sum(map(len, measured.samples_ms[key]))
    return Row(latency_ms_p25=p25, latency_ms_p50=p50, latency_ms_p90=p90, samples=samples)
