"""The present host: what the operating system reports of its hardware."""

from __future__ import annotations

import functools
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.affinity import allowed_cores, bound_by

# What macOS (sysctl) and Windows (IsProcessorFeaturePresent) call the same features.
MACOS_FLAGS = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
}
WINDOWS_FLAGS = {19: "asimd", 39: "avx", 40: "avx2", 41: "avx512f", 43: "asimddp"}

# What nvidia-smi calls that on which a GPU's speed depends beside its name.
GPU_STATE = (
    *("driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory", "clocks.sm"),
    *("clocks.mem", "persistence_mode", "mig.mode.current"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a machine reports of itself; None where it does not say.

    Attributes:
        architecture: e.g. ``x86_64``, ``aarch64``.
        cpu_name: the CPU's name as the system gives it, which on a cloud machine may be just ``AMD EPYC``.
        family, model: the x86 family and model numbers, which tell generations apart.
        flags: instruction set flags as Linux names them, sorted.
        cores: logical cores that this process may run on.
        memory_gib: main memory in GiB, to one decimal.
        l1d_kib, l2_kib, l3_kib: sizes of the data caches that the first core sees, in KiB.
        gpus: names of the NVIDIA GPUs.
    """

    architecture: str
    cpu_name: str
    family: int | None = None
    model: int | None = None
    flags: tuple[str, ...] = ()
    cores: int
    memory_gib: float | None = None
    l1d_kib: int | None = None
    l2_kib: int | None = None
    l3_kib: int | None = None
    gpus: tuple[str, ...] = ()

    @property
    def cpu(self) -> str:
        """The CPU text that a device's `match.cpu` is held against, e.g. ``AMD EPYC family 25 model 17``."""
        if self.family is None or self.model is None:
            return self.cpu_name
        return f"{self.cpu_name} family {self.family} model {self.model}"


def usable_cores() -> int:
    """Cores that this process may run on now, whatever OpenMP bound it to (`hwnas.affinity`)."""
    return len(allowed_cores()) or os.cpu_count() or 1


@functools.cache
def detect_host() -> Host:
    """What this machine reports.

    The first answer is kept: timing pins the process to few cores, and the host must not seem to shrink.
    """
    if bound := bound_by():
        logging.getLogger(__name__).warning("this host is described with fewer cores than it has: %s", bound)
    host = Host(
        architecture=platform.machine(),
        cpu_name=platform.processor() or platform.machine(),
        cores=usable_cores(),
        gpus=_gpus(),
    )
    if sys.platform == "win32":
        return _windows(host)
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "machdep.cpu", "hw"]
        return from_sysctl(host, subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    host = replace(host, memory_gib=_gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():  # a BSD
        return host
    host = _with_caches(host, Path("/sys/devices/system/cpu/cpu0/cache"))
    return from_cpuinfo(host, cpuinfo.read_text())


def from_cpuinfo(host: Host, text: str) -> Host:
    """A host with what Linux says in ``/proc/cpuinfo``, on x86 or Arm."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        said.setdefault(key.strip(), []).append(value.strip())
    flags = (said.get("flags") or said.get("Features") or [""])[0].split()
    name, family, model = host.cpu_name, None, None
    if "CPU part" in said:
        # Arm gives numbers only, and one part for each kind of core.
        parts = " ".join(sorted(set(said["CPU part"])))
        name = f"Arm implementer {said['CPU implementer'][0]} part {parts}"
    elif "model name" in said:
        name = said["model name"][0]
        if "cpu family" in said:
            family, model = int(said["cpu family"][0]), int(said["model"][0])
    return replace(host, cpu_name=" ".join(name.split()), flags=tuple(sorted(set(flags))), family=family, model=model)


def from_sysctl(host: Host, text: str) -> Host:
    """A host with what macOS says to ``sysctl machdep.cpu hw`` (lines of ``key: value``)."""
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    features = " ".join(said.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features"))
    flags = {"avx" if feature == "avx1.0" else feature for feature in features.lower().split()}
    flags |= {flag for key, flag in MACOS_FLAGS.items() if said.get(key) == "1"}

    def number(key: str, unit: int = 1) -> int | None:
        return int(said[key]) // unit or None if key in said else None

    return replace(
        host,
        cpu_name=said.get("machdep.cpu.brand_string", host.cpu_name),
        family=number("machdep.cpu.family"),
        model=number("machdep.cpu.model"),
        flags=tuple(sorted(flags)),
        memory_gib=_gib(int(said["hw.memsize"])) if "hw.memsize" in said else None,
        l1d_kib=number("hw.l1dcachesize", 1024),
        l2_kib=number("hw.l2cachesize", 1024),
        l3_kib=number("hw.l3cachesize", 1024),
    )


def from_registry(host: Host, name: str, identifier: str) -> Host:
    """A host with what Windows says in its registry, e.g. ``AMD64 Family 25 Model 17 Stepping 1``."""
    found = re.search(r"Family (\d+) Model (\d+)", identifier)
    family, model = (int(found[1]), int(found[2])) if found else (None, None)
    return replace(host, cpu_name=" ".join(name.split()), family=family, model=model)


def _gib(size_bytes: int) -> float:
    return round(size_bytes / 2**30, 1)


def _with_caches(host: Host, folder: Path) -> Host:
    """A host with the cache sizes from sysfs; some virtual machines show none."""
    sizes: dict[str, int] = {}
    for index in folder.glob("index*"):
        level, kind, size = (index.joinpath(name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            sizes[level] = int(size.removesuffix("K"))
    return replace(host, l1d_kib=sizes.get("1"), l2_kib=sizes.get("2"), l3_kib=sizes.get("3"))


def gpu_state() -> dict[str, str]:
    """Driver, memory, clocks and power limit of the first GPU, as `nvidia-smi` reports them; empty where it fails."""
    rows = _nvidia_smi(*GPU_STATE)
    return dict(zip(GPU_STATE, rows[0].split(", "), strict=True)) if rows else {}


def _gpus() -> tuple[str, ...]:
    """Names of the GPUs; none, with a warning in the log, where `nvidia-smi` fails."""
    return _nvidia_smi("name")


def _nvidia_smi(*fields: str) -> tuple[str, ...]:
    """A line for each GPU that `nvidia-smi` reports, with these fields."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        logging.getLogger(__name__).warning("no GPU is seen: %s", error)
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


if sys.platform == "win32":

    def _windows(host: Host) -> Host:
        import ctypes
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            name, identifier = (str(winreg.QueryValueEx(key, k)[0]) for k in ("ProcessorNameString", "Identifier"))
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        flags = tuple(sorted(flag for number, flag in WINDOWS_FLAGS.items() if present(number)))
        return replace(from_registry(host, name, identifier), flags=flags)
