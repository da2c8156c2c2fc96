"""Checks and facts of the host that measures."""

from __future__ import annotations

import functools
import logging
import platform
from importlib.metadata import version
from pathlib import Path

from hwnas.errors import RuntimeUnavailable, TableError
from hwnas.runtimes import session_class
from hwnas.targets import Target, cpu_quota, detect_host
from hwnas.targets.device import DeviceKind
from hwnas.targets.host import gpu_state
from hwnas.targets.linux import text_of
from hwnas.timing import require_cores
from hwnas.timing.memory import available_bytes

log = logging.getLogger(__name__)


def check_host(target: Target) -> None:
    """Refuse to measure a device that is not this host, with more threads than cores, or with what is not measured.

    Raises:
        TableError: lists what differs.
        InvalidValue: this process does not have the cores that the recipe needs, or HWNAS_MEMORY_GIB is wrong.
        RuntimeUnavailable: the recipe's runtime estimates, or is not driven by hwnas.
    """
    if not target.recipe.facts.measured:
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


def host_facts(kind: DeviceKind, *, core: int = 0) -> dict[str, object]:
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
