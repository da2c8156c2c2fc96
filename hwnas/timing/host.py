"""Checks and facts of the measuring host."""

from __future__ import annotations

import functools
import logging
import os
import platform
from importlib.metadata import version
from pathlib import Path

from hwnas.errors import RuntimeUnavailable, TableError
from hwnas.runner.memory import available_bytes
from hwnas.runtimes import session_class
from hwnas.targets import Host, Target, cpu_quota, cpu_state, detect_host, read_topology, slowed_by
from hwnas.targets.device import DeviceKind
from hwnas.targets.host import gpu_state
from hwnas.timing import require_cores
from hwnas.timing.opened import errors_of_runner

log = logging.getLogger(__name__)

# Variables that keep runtimes from instructions of the CPU: a table measured with them is of another machine.
_NARROWS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


def check_host(target: Target) -> None:
    """Check that a target can be measured on this host: device, cores and runtime.

    Raises:
        TableError: the host is not the device; the message lists the differences.
        InvalidValue: this process does not have the cores that the recipe needs, or HWNAS_MEMORY_GIB is invalid.
        RuntimeUnavailable: the recipe's runtime only estimates, or is not driven by hwnas.
    """
    require_timed(target)
    held = require_cores(target.recipe)
    with errors_of_runner():
        available_bytes()  # reject an invalid HWNAS_MEMORY_GIB before half a minute of lowering
    differences = target.device.differences(detect_host())
    if differences:
        raise TableError(
            f"this host is not the device {target.device.name}: {'; '.join(differences)}. Measure a table on its "
            "device; `this` is the device that matches this host."
        )
    if held.note:
        _say_once(f"{target.recipe.name} is timed on the cores {held.text}: {held.note}")
    if target.device.kind == "cpu" and (limits := slowed_by()):
        _say_once(f"this CPU is slowed now ({limits}), so its timings are too slow: cool it, or check its power supply")


def require_timed(target: Target) -> None:
    """Check that a target's runtime is one that is timed.

    Raises:
        RuntimeUnavailable: it only estimates, or is not driven by hwnas.
    """
    if not target.recipe.facts.measured:
        raise RuntimeUnavailable(
            f"{target.recipe.name} cannot be timed (runtime {target.recipe.runtime}), so it cannot have a table. "
            "Choose a recipe of a measured runtime, e.g. onnxruntime-cpu-fp32; a search uses roofline's estimates "
            "without a table"
        )


@functools.cache
def _say_once(words: str) -> None:
    """Log a warning once: each stage of a job would repeat it."""
    log.warning(words)


def runtime_versions(target: Target) -> dict[str, str]:
    """Versions of the software that a measurement depends on."""
    runtime = session_class(target.recipe).version()
    return {
        "hwnas": version("hwnas"),
        target.recipe.runtime: runtime,
        **({"driver": gpu_state().get("driver_version", "unknown")} if target.device.kind == "gpu" else {}),
        "torch": version("torch"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def host_facts(kind: DeviceKind, *, core: int = 0) -> dict[str, object]:
    """Facts about the host for a manifest: hardware and state; including its GPU, if the target is a GPU.

    Args:
        kind: kind of the device.
        core: logical core whose clock and kind are recorded: kinds of cores differ.
    """
    host = detect_host()
    facts = cpu_facts(host, core=core)
    facts |= {name: os.environ[name] for name in _NARROWS if os.environ.get(name)}
    if kind == "gpu":
        facts |= {"gpus": list(host.gpus), **{f"gpu.{name}": value for name, value in gpu_state().items()}}
    return facts


def cpu_facts(host: Host, root: Path = Path("/"), *, core: int = 0) -> dict[str, object]:
    """Facts about the CPU of a Linux machine for a manifest; those that it does not report are left out.

    Hardware, the kind of the timed core, clock, temperatures and throttling (`hwnas.targets.cpu_state`), the quota of
    CPU time, and flags.

    Args:
        host: the machine (`hwnas.targets.read_host`).
        root: replaces ``/``: `hwnas.targets.SNAPSHOT` lists the files that are read below it.
        core: logical core whose clock and kind are recorded.
    """
    facts: dict[str, object] = {"architecture": host.architecture, "cpu": host.cpu, "cores": host.cores}
    facts |= {name: value for name, value in (("core", host.core), ("board", host.board)) if value is not None}
    topology = read_topology(root)
    kind = next((topology.kinds[known.kind] for known in topology.cores if known.number == core), "")
    facts |= {"kind_of_core": kind} if kind else {}
    # Virtual machines, and systems other than Linux, do not report their clock.
    facts |= dict.fromkeys(("scaling_governor", "scaling_max_freq"), "not shown by this system")
    facts |= cpu_state(root, core=core)
    if quota := cpu_quota(root):
        facts["quota_cores"] = round(quota.cores, 3)
    return {**facts, "flags": list(host.flags)}
