"""Profiling: every op of a space timed on a target, and the context factors fitted on whole networks."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hwnas.errors import TableError
from hwnas.latency.manifest import Manifest
from hwnas.latency.model import Floats, check_networks, fit_model
from hwnas.latency.table import LatencyTable, Row, merged
from hwnas.lowering import Program, form_of
from hwnas.progress import Progress, silent
from hwnas.runtimes import session_class
from hwnas.spaces import Codes, Domain, Op, Space
from hwnas.targets import Journal, Target, detect_host
from hwnas.timing import Measurement, Protocol, time_programs

OPS = Protocol()
NETWORKS = Protocol(visit_ms=10.0, min_passes=10, max_passes=20)
CALIBRATION_SEED = 20_260


def profile(
    space: Space,
    target: Target,
    *,
    journals: Path,
    old: LatencyTable | None = None,
    networks: int = 16,
    progress: Progress = silent,
) -> LatencyTable:
    """Measure a space on a target and fit its latency model.

    Args:
        space: every distinct op of it is timed.
        target: its device must be this host.
        journals: folder for the record of the measurement under way; after a kill, the same call goes on there.
        old: a table of the same target; rows that are not measured anew are kept.
        networks: calibration networks.
        progress: told about each visit.

    Raises:
        InvalidValue: fewer than 4 networks.
        TableError: the target's device is not this host.
        RuntimeUnavailable: the runtime cannot run here.
        OutputError: the journal cannot be written.
    """
    check_networks(networks)
    check_host(target)
    versions = runtime_versions(target)
    domain = Domain.of(space)
    subject = {
        "target": target.name,
        "recipe": target.recipe.hash,
        "versions": versions,
        "domain": domain.model_dump(),
    }
    programs = lower_ops(space.distinct_ops, target, progress)
    with Journal(journals / "ops.jsonl", {**subject, "protocol": asdict(OPS)}) as journal:
        measured = time_programs(
            {op.key: program for op, program in programs.items()},
            target.recipe,
            OPS,
            reference=max(programs, key=lambda op: op.macs).key,
            journal=journal,
            what="timing ops",
            progress=progress,
        )
    rows, fits = merged(((key, _row(measured, key)) for key in measured.samples_ms), old)
    manifest = Manifest.model_validate(
        {
            "device": target.device.name,
            "recipe": target.recipe.name,
            "device_fingerprint": target.device.fingerprint,
            "recipe_hash": target.recipe.hash,
            "csv_sha256": "",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "host": host_facts(),
            "versions": versions,
            "measurement": measured.summary(),
            "fits": [fit.model_dump() for fit in fits],
        }
    )
    table = LatencyTable(target=target, rows=rows, manifest=manifest)
    codes = calibration_codes(space, networks)
    calibration = {**subject, "protocol": asdict(NETWORKS), "codes": codes.tolist()}
    with Journal(journals / "networks.jsonl", calibration) as journal:
        measured = time_networks(space, target, codes, programs, journal=journal, progress=progress)
    fit = fit_model(
        table,
        space,
        codes,
        latencies_ms(measured),
        domain=domain.model_dump(),
        seed=CALIBRATION_SEED,
        measurement=measured.summary(),
    )
    return table.with_fit(fit)


def calibration_codes(space: Space, networks: int) -> Codes:
    """The networks that the context factors are fitted on: the smallest, the largest, and random ones."""
    corners = space.encode([space.smallest, space.largest])
    random = space.sample(max(networks - 2, 0), seed=CALIBRATION_SEED)
    return np.concatenate([corners, random])[:networks]


def lower_ops(ops: Sequence[Op], target: Target, progress: Progress = silent) -> Mapping[Op, Program]:
    """Ops as programs of a target's runtime."""
    progress(f"lowering {len(ops)} ops", 0, 1)
    programs = form_of(target.recipe).lower_ops(ops)
    progress(f"lowering {len(ops)} ops", 1, 1)
    return programs


def time_networks(
    space: Space,
    target: Target,
    codes: Codes,
    programs: Mapping[Op, Program],
    *,
    journal: Journal | None = None,
    what: str = "timing networks",
    progress: Progress = silent,
) -> Measurement:
    """Time whole networks: codes ``(n, variables)`` -> a measurement of n programs, named by their row.

    The networks are the ops' graphs laid end to end, which is the graph of the whole network's export.
    """
    form = form_of(target.recipe)
    networks = {
        str(i): form.assemble([programs[op] for _, op in space.ops(arch)]) for i, arch in enumerate(space.decode(codes))
    }
    return time_programs(networks, target.recipe, NETWORKS, journal=journal, what=what, progress=progress)


def latencies_ms(measured: Measurement) -> Floats:
    """p25 of each network of `time_networks`, in milliseconds: ``(n,)``."""
    return np.array([measured.p25_ms(str(i)) for i in range(len(measured.samples_ms))])


def check_host(target: Target) -> None:
    """Refuse to measure a device that is not this host.

    Raises:
        TableError: lists what differs.
    """
    differences = target.device.differences(detect_host())
    if differences:
        raise TableError(
            f"this host is not the device {target.device.name}: {'; '.join(differences)}. A table must be measured on "
            "its device; `this` stands for the device that matches this host."
        )


def runtime_versions(target: Target) -> dict[str, str]:
    """Versions of what a measurement depends on."""
    return {
        "hwnas": version("hwnas"),
        target.recipe.runtime: session_class(target.recipe).version(),
        "torch": version("torch"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def host_facts() -> dict[str, object]:
    """What a manifest says of the host: facts about its hardware and its clock only."""
    host = detect_host()
    facts: dict[str, object] = {"architecture": host.architecture, "cpu": host.cpu, "cores": host.cores}
    for name in ("scaling_governor", "scaling_max_freq"):
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq") / name
        # Virtual machines, and systems other than Linux, do not show their clock.
        facts[name] = path.read_text().strip() if path.is_file() else "not shown by this system"
    return {**facts, "flags": list(host.flags)}


def _row(measured: Measurement, key: str) -> Row:
    p25, p50, p90 = (measured.quantile_ms(key, q) for q in (0.25, 0.5, 0.9))
    samples = sum(map(len, measured.samples_ms[key]))
    return Row(latency_ms_p25=p25, latency_ms_p50=p50, latency_ms_p90=p90, samples=samples)


def with_validation(table: LatencyTable, space: Space, validation: object) -> LatencyTable:
    """The table with a validation stored in the fit of a space."""
    fit = table.fit_for(space)
    assert fit is not None
    return replace(table.with_fit(fit.model_copy(update={"validation": validation})))
