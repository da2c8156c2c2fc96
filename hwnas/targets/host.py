"""The present host: its hardware, as the operating system reports it."""

from __future__ import annotations

import functools
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.affinity import allowed_cores, bound_by
from hwnas.targets.linux import from_linux, gib, one_line
from hwnas.targets.topology import read_topology

log = logging.getLogger(__name__)

# Names of the same features on macOS (sysctl) and Windows (IsProcessorFeaturePresent).
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

# Fields of nvidia-smi that affect a GPU's speed.
GPU_STATE = (
    *("driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory", "clocks.sm"),
    *("clocks.mem", "persistence_mode", "mig.mode.current"),
)

# Answers of `platform.processor()` that are architectures only.
_ARCHITECTURES = ("amd64", "arm", "arm64", "aarch64", "i386", "i686", "unknown", "x86_64")
# Every Apple chip in a virtual machine has part 0x000; CPU models of a hypervisor hide the real CPU.
_NO_CPU = re.compile(r"Arm implementer \S+ part( 0x0+)+|(QEMU|Common( 32-bit)?) .*|(Common )?KVM processor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Facts that a machine reports about itself; None if it does not report one.

    Attributes:
        architecture: e.g. ``x86_64``, ``aarch64``.
        cpu_name: the CPU's name as the system reports it; on a cloud machine it may be just ``AMD EPYC``.
        family, model: the x86 family and model numbers, which distinguish generations.
        flags: instruction set flags as Linux names them, sorted; on RISC-V the extensions.
        cores: logical cores that this process may run on.
        memory_gib: main memory in GiB, to one decimal.
        l1d_kib, l2_kib, l3_kib: sizes of the data caches that the first core of the fastest kind sees, in KiB.
        gpus: names of the NVIDIA GPUs.
        core: further identification of the cores, except on x86: Arm's revisions, RISC-V's identification.
        board: the machine's name in its device tree or firmware; not on x86.
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
    core: str | None = None
    board: str | None = None

    @property
    def cpu(self) -> str:
        """The CPU text that a device's `match.cpu` is matched with, e.g. ``AMD EPYC family 25 model 17``."""
        if self.family is None or self.model is None:
            return self.cpu_name
        return f"{self.cpu_name} family {self.family} model {self.model}"

    @property
    def cpu_is_named(self) -> bool:
        """Whether the CPU text identifies a kind of CPU; the name of an architecture or a hypervisor does not."""
        if self.cpu_name.lower() in {"", self.architecture.lower(), *_ARCHITECTURES}:
            return self.family is not None and self.model is not None
        return _NO_CPU.fullmatch(self.cpu_name) is None

    @property
    def recognisable(self) -> bool:
        """Whether the host reports anything that identifies its kind of machine."""
        return self.cpu_is_named or self.core is not None or self.board is not None

    @property
    def unrecognised(self) -> str:
        """The start of a message about a host that is not `recognisable`."""
        cpu = self.cpu or self.architecture
        return f"this host reports nothing that identifies its kind of machine (its CPU is {cpu!r})"


def usable_cores() -> int:
    """Cores that this process may run on now, regardless of OpenMP's binding (`hwnas.affinity`)."""
    return len(allowed_cores()) or os.cpu_count() or 1


@functools.cache
def detect_host() -> Host:
    """The facts that this machine reports.

    The result is cached: timing pins the process to few cores, which must not change the host's core count.
    """
    if bound := bound_by():
        log.warning("this host is described with fewer cores than it has: %s", bound)
    host = Host(
        architecture=platform.machine(),
        cpu_name=platform.processor() or platform.machine(),
        cores=usable_cores(),
        gpus=_gpus(),
    )
    if sys.platform == "win32":
        return _windows(host)
    if sys.platform == "darwin":
        return from_sysctl(host, _answer(["/usr/sbin/sysctl", "machdep.cpu", "hw"], "the CPU is not known"))
    # A BSD has neither /proc/cpuinfo nor /sys.
    return _read(replace(host, memory_gib=_memory_gib()), Path("/"))


def read_host(root: Path, *, architecture: str, allowed: Collection[int], gpus: Collection[str] = ()) -> Host:
    """The facts that a Linux machine reports, read from its files, e.g. from copies of another machine's.

    Args:
        root: replaces ``/``: `hwnas.targets.SNAPSHOT` lists the files that are read below it.
        architecture: of the machine, as ``uname -m`` prints it.
        allowed: logical cores that the process which times may run on (`os.sched_getaffinity`).
        gpus: names of the NVIDIA GPUs.
    """
    known = Host(architecture=architecture, cpu_name=architecture, cores=len(allowed), gpus=tuple(gpus))
    return _read(known, root)


def _read(known: Host, root: Path) -> Host:
    fastest = (core.number for core in read_topology(root).cores if core.kind == 0)
    return from_linux(known, root, core=min(fastest, default=0))


def from_sysctl(host: Host, text: str) -> Host:
    """A host with the output of ``sysctl machdep.cpu hw`` on macOS (lines of ``key: value``)."""
    said = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    features = " ".join(said.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features"))
    flags = {"avx" if feature == "avx1.0" else feature for feature in features.lower().split()}
    flags |= {flag for key, flag in MACOS_FLAGS.items() if said.get(key) == "1"}

    def number(key: str, unit: int = 1) -> int | None:
        text = said.get(key, "")
        return int(text) // unit or None if text.isdecimal() else None

    return replace(
        host,
        cpu_name=one_line(said.get("machdep.cpu.brand_string", "")) or host.cpu_name,
        family=number("machdep.cpu.family"),
        model=number("machdep.cpu.model"),
        flags=tuple(sorted(flags)),
        memory_gib=gib(number("hw.memsize")),
        l1d_kib=number("hw.l1dcachesize", 1024),
        l2_kib=number("hw.l2cachesize", 1024),
        l3_kib=number("hw.l3cachesize", 1024),
    )


def from_registry(host: Host, name: str, identifier: str) -> Host:
    """A host with the identifier in the registry of Windows, e.g. ``AMD64 Family 25 Model 17 Stepping 1``."""
    found = re.search(r"Family (\d+) Model (\d+)", identifier)
    family, model = (int(found[1]), int(found[2])) if found else (None, None)
    return replace(host, cpu_name=one_line(name) or host.cpu_name, family=family, model=model)


def _memory_gib() -> float | None:
    try:
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):  # not reported by this system, or hidden by a sandbox
        return None
    return gib(page * pages) if min(page, pages) > 0 else None


def gpu_state() -> dict[str, str]:
    """Driver, memory, clocks and power limit of the first GPU from `nvidia-smi`; empty if that fails."""
    rows = _nvidia_smi(*GPU_STATE)
    return dict(zip(GPU_STATE, rows[0], strict=True)) if rows else {}


def _gpus() -> tuple[str, ...]:
    """Names of the GPUs; empty, with a logged warning, if `nvidia-smi` fails."""
    return tuple(one_line(name) for _, name in _nvidia_smi("index", "name"))


def _nvidia_smi(*fields: str) -> list[list[str]]:
    """The values of these fields for each GPU that `nvidia-smi` reports."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    answer = _answer([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"], "no GPU is detected")
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    rows = [[value.strip() for value in line.split(",")] for line in lines]
    # Some versions print "No devices were found" or an error about the driver, and exit with 0.
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(fields) or not all(row) or (fields[0] == "index" and not row[0].isdecimal()):
            log.warning("no GPU is detected: nvidia-smi printed %r, not values of %s", line[:200], ", ".join(fields))
            return []
    return rows


def _answer(command: list[str], without: str) -> str:
    """The output of a system program; empty, with a logged warning that states the consequence, if it fails.

    Output of a program that fails is returned, too: the caller checks it.
    """
    try:
        # Not the locale's encoding: the output may contain any bytes.
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20, check=False)
        if not done.stdout.strip():
            done.check_returncode()
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("%s: %s", without, error)
        return ""
    return done.stdout


if sys.platform == "win32":

    def _windows(host: Host) -> Host:
        import ctypes
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
                name, identifier = (str(winreg.QueryValueEx(key, k)[0]) for k in ("ProcessorNameString", "Identifier"))
        except OSError:
            name = identifier = ""
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        flags = tuple(sorted(flag for number, flag in WINDOWS_FLAGS.items() if present(number)))
        return replace(from_registry(host, name, identifier), flags=flags)
