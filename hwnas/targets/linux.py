"""Facts about a machine from /proc and /sys on Linux.

Both differ between kernels, architectures, virtual machines and containers. Facts that are absent, blank, malformed or
unreadable are left out; none is required.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.runner.memory import content

if TYPE_CHECKING:
    from hwnas.targets.host import Host

_Facts = Mapping[str, Sequence[str]]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_LONGEST = 200  # characters of a name; firmware may contain garbage

_CPU = "sys/devices/system/cpu"
_TREES = ("proc/device-tree", "sys/firmware/devicetree/base")
_DMI = "sys/class/dmi/id"
# The files that are read here, as patterns below the root folder.
FILES = (
    *("proc/cpuinfo", "proc/meminfo"),
    *(f"{tree}/{name}" for tree in _TREES for name in ("model", "compatible")),
    *(f"{_DMI}/{name}" for name in ("sys_vendor", "product_name", "board_vendor", "board_name")),
    *(f"{_CPU}/cpu[0-9]*/cache/index*/{name}" for name in ("level", "type", "size")),
)

# Placeholders of firmware, and names that a hypervisor gives to every guest.
_NO_BOARD = re.compile(
    r"virt|qemu|kvm|vmware|bochs|generic|standard pc|to be filled|default string|system product name|"
    r"not (specified|applicable|available)|\boem\b|o\.e\.m|unknown|\bnone\b|^[x0 .-]+$",
    re.IGNORECASE,
)


def from_linux(host: Host, root: Path = Path("/"), *, core: int = 0) -> Host:
    """A host with the facts in ``proc`` and ``sys`` below a root folder.

    Args:
        host: the facts that are known otherwise; they stay where the files do not report them.
        root: replaces ``/``.
        core: logical core whose caches are described: kinds of cores differ.
    """
    said = _parsed(content(root / "proc/cpuinfo"))
    caches = _cache_sizes_kib(root / f"{_CPU}/cpu{core}/cache")
    host = replace(host, l1d_kib=caches.get("1"), l2_kib=caches.get("2"), l3_kib=caches.get("3"))
    host = replace(host, memory_gib=_memory_gib(root) or host.memory_gib)
    host = _with_cpu(host, said)
    if host.family is not None:
        return host  # x86: name, family and model identify the generation
    return replace(host, core=_core(said), board=_board(said, root))


def gib(size_bytes: int | None) -> float | None:
    """GiB to one decimal; None if unknown or rounded to zero."""
    return round((size_bytes or 0) / 2**30, 1) or None


def one_line(text: str) -> str:
    """Text of the firmware or the kernel as a name: one line of bounded length."""
    return " ".join(text.split())[:_LONGEST].strip()


def text_of(path: Path) -> str | None:
    """The first line of a file in /proc or /sys; None if it is absent, blank or unreadable."""
    return one_line(content(path)) or None


def _parsed(cpuinfo: str) -> dict[str, list[str]]:
    """Key -> its values, one per core, without blank ones and ``unknown``."""
    said: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        value = one_line(value) if key.strip().lower() not in {"flags", "features", "isa"} else value.strip()
        if value and value.lower() != "unknown":
            said.setdefault(key.strip(), []).append(value)
    return said


def _with_cpu(host: Host, said: _Facts) -> Host:
    """Name, family and model, flags."""
    flags = _flags(said)
    name, family, model = host.cpu_name, None, None
    if "CPU part" in said:
        # Arm reports numbers only, and one part for each kind of core.
        parts = " ".join(sorted(set(said["CPU part"])))
        name = f"Arm implementer {said.get('CPU implementer', ['unknown'])[0]} part {parts}"
    else:
        name = said.get("model name", [name])[0]
        family, model = (_number(said.get(key, [""])[0]) for key in ("cpu family", "model"))
    return replace(host, cpu_name=name, flags=tuple(sorted(flags)), family=family, model=model)


def _flags(said: _Facts) -> set[str]:
    """Instruction set flags; on RISC-V the extensions that all cores have, e.g. ``v`` and ``zvfh``."""
    if isas := [isa for isa in said.get("isa", ()) if isa.startswith("rv")]:
        return set.intersection(*map(_extensions, isas))
    return set((said.get("flags") or said.get("Features") or said.get("features") or [""])[0].split())


def _extensions(isa: str) -> set[str]:
    """The extensions in the name of a RISC-V instruction set, e.g. ``rv64imafdcv_zicsr_zvfh``."""
    base, *longer = isa.split("_")
    return {*re.sub(r"^rv\d+|[^a-z]", "", base), *filter(None, longer)}


def _core(said: _Facts) -> str | None:
    """Further identification of the cores beyond the CPU text; it depends on the architecture."""
    parts, variants, revisions = (said.get(f"CPU {key}", ()) for key in ("part", "variant", "revision"))
    if parts:
        if len(parts) != len(variants) or len(parts) != len(revisions) or not any(map(_hexadecimal, parts)):
            return None
        kinds = {f"{p} r{_hexadecimal(v)}p{r}" for p, v, r in zip(parts, variants, revisions, strict=True)}
        return ", ".join(sorted(kinds))
    if "isa" in said:  # RISC-V; most boards share the same ISA name, such as rv64imafdc
        ids = [f"{key} {said[key][0]}" for key in ("mvendorid", "marchid", "mimpid") if _hexadecimal(said, key)]
        told = [*said.get("uarch", ())[:1], *ids]
        return one_line(" ".join([*told, said["isa"][0].partition("_")[0]])) if told else None
    mainframe = re.search(r"machine = (\w+)", " ".join(said.get("processor 0", ())))
    if mainframe:
        return f"IBM machine {mainframe[1]}"
    # POWER and SPARC, LoongArch, MIPS.
    return next((said[key][0] for key in ("cpu", "Model Name", "cpu model") if key in said), None)


def _board(said: _Facts, root: Path) -> str | None:
    """The machine's name: from the device tree, /proc/cpuinfo (Raspberry Pi) or the firmware (DMI)."""
    names = [text_of(root / tree / "model") for tree in _TREES] + [*said.get("Model", ())[:1]]
    names += [text_of(root / tree / "compatible") for tree in _TREES]
    dmi = root / _DMI
    for who, what in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        if product := text_of(dmi / what):
            names.append(one_line(f"{text_of(dmi / who) or ''} {product}") if not _NO_BOARD.search(product) else None)
    names += said.get("Hardware", ())[:1]  # Arm with an old kernel
    return next((name for name in names if name and not _NO_BOARD.search(name)), None)


def _memory_gib(root: Path) -> float | None:
    found = re.search(r"^MemTotal:\s+(\d{1,15}) kB$", content(root / "proc/meminfo"), re.MULTILINE)
    return gib(int(found[1]) * 1024) if found else None


def _cache_sizes_kib(folder: Path) -> dict[str, int]:
    """Level -> size of the data cache in KiB; some virtual machines show no cache, or one without a size."""
    sizes: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (text_of(index / name) for name in ("level", "type", "size"))
        found = re.fullmatch(r"(\d{1,12})([KMG]?)B?", size or "", re.IGNORECASE)
        if level and kind and kind != "Instruction" and found:
            kib = int(found[1]) * _UNITS[found[2].upper()] // 1024  # in bytes if there is no unit, as in lscpu
            if kib:
                sizes[level] = kib
    return sizes


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _hexadecimal(text: str | _Facts, key: str = "") -> int:
    """The value of a number such as ``0x41``; 0 if it is not a number."""
    digits = text if isinstance(text, str) else text.get(key, [""])[0]
    return int(digits, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,32}", digits) else 0
