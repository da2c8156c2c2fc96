"""What Linux reports of a machine in /proc and /sys.

Both differ between kernels, architectures, virtual machines and containers. A fact that is absent, blank, malformed or
unreadable is left out; none of them is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.targets.host import Host

_Facts = Mapping[str, Sequence[str]]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_LONGEST = 200  # characters of a name; firmware is known to hold garbage

# What firmware says where nobody filled it in, and what a hypervisor says of every guest.
_NO_BOARD = re.compile(
    r"virt|qemu|kvm|vmware|bochs|generic|standard pc|to be filled|default string|system product name|"
    r"not (specified|applicable|available)|\boem\b|o\.e\.m|unknown|\bnone\b|^[x0 .-]+$",
    re.IGNORECASE,
)


def from_linux(host: Host, root: Path = Path("/")) -> Host:
    """A host with what Linux says of it below a root folder, in ``proc`` and ``sys``."""
    said = _parsed(content(root / "proc/cpuinfo"))
    caches = _cache_sizes_kib(root / "sys/devices/system/cpu/cpu0/cache")
    host = replace(host, l1d_kib=caches.get("1"), l2_kib=caches.get("2"), l3_kib=caches.get("3"))
    host = _with_cpu(host, said)
    if host.family is not None:
        return host  # x86: its name, family and model tell its generation
    return replace(host, core=_core(said), board=_board(said, root))


def one_line(text: str) -> str:
    """Text of the firmware or the kernel as a name: on one line, of a bounded length."""
    return " ".join(text.split())[:_LONGEST].strip()


def text_of(path: Path) -> str | None:
    """The first line of a file of /proc or /sys; None where it is absent, blank or cannot be read."""
    return one_line(content(path)) or None


def content(path: Path) -> str:
    """A whole file of /proc or /sys, without blanks around it; empty where it is absent or cannot be read."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError):  # masked in containers; EIO and ENODEV of some drivers; a NUL in the path
        return ""
    # A device tree ends its texts with NUL and joins several by it; the first is the most specific.
    return data.decode("utf-8", errors="replace").partition("\0")[0].strip()


def _parsed(cpuinfo: str) -> dict[str, list[str]]:
    """Key -> its values, one a core; blank ones and ``unknown`` are left out."""
    said: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        value = one_line(value) if key.strip().lower() not in {"flags", "features"} else value.strip()
        if value and value.lower() != "unknown":
            said.setdefault(key.strip(), []).append(value)
    return said


def _with_cpu(host: Host, said: _Facts) -> Host:
    """Name, family and model, flags."""
    flags = (said.get("flags") or said.get("Features") or said.get("features") or [""])[0].split()
    name, family, model = host.cpu_name, None, None
    if "CPU part" in said:
        # Arm gives numbers only, and one part for each kind of core.
        parts = " ".join(sorted(set(said["CPU part"])))
        name = f"Arm implementer {said.get('CPU implementer', ['unknown'])[0]} part {parts}"
    else:
        name = said.get("model name", [name])[0]
        family, model = (_number(said.get(key, [""])[0]) for key in ("cpu family", "model"))
    return replace(host, cpu_name=name, flags=tuple(sorted(set(flags))), family=family, model=model)


def _core(said: _Facts) -> str | None:
    """What the cores say of themselves beside the CPU text, in the words of their architecture."""
    parts, variants, revisions = (said.get(f"CPU {key}", ()) for key in ("part", "variant", "revision"))
    if parts:
        if len(parts) != len(variants) or len(parts) != len(revisions) or not any(map(_hexadecimal, parts)):
            return None
        kinds = {f"{p} r{_hexadecimal(v)}p{r}" for p, v, r in zip(parts, variants, revisions, strict=True)}
        return ", ".join(sorted(kinds))
    if "isa" in said:  # RISC-V; its name alone, such as rv64imafdc, is that of most boards
        ids = [f"{key} {said[key][0]}" for key in ("mvendorid", "marchid", "mimpid") if _hexadecimal(said, key)]
        told = [*said.get("uarch", ())[:1], *ids]
        return one_line(" ".join([*told, said["isa"][0].partition("_")[0]])) if told else None
    mainframe = re.search(r"machine = (\w+)", " ".join(said.get("processor 0", ())))
    if mainframe:
        return f"IBM machine {mainframe[1]}"
    # POWER and SPARC, LoongArch, MIPS.
    return next((said[key][0] for key in ("cpu", "Model Name", "cpu model") if key in said), None)


def _board(said: _Facts, root: Path) -> str | None:
    """The machine around the CPU: of the device tree, of /proc/cpuinfo (Raspberry Pi), or of the firmware (DMI)."""
    tree, dmi = root / "sys/firmware/devicetree/base", root / "sys/class/dmi/id"
    names = [text_of(root / "proc/device-tree/model"), text_of(tree / "model"), *said.get("Model", ())[:1]]
    names += [text_of(root / "proc/device-tree/compatible"), text_of(tree / "compatible")]
    for who, what in (("sys_vendor", "product_name"), ("board_vendor", "board_name")):
        if product := text_of(dmi / what):
            names.append(one_line(f"{text_of(dmi / who) or ''} {product}") if not _NO_BOARD.search(product) else None)
    return next((name for name in names if name and not _NO_BOARD.search(name)), None)


def _cache_sizes_kib(folder: Path) -> dict[str, int]:
    """Level -> size of the data cache in KiB; some virtual machines show none, or a cache without its size."""
    sizes: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (text_of(index / name) for name in ("level", "type", "size"))
        found = re.fullmatch(r"(\d{1,12})([KMG]?)B?", size or "", re.IGNORECASE)
        if level and kind and kind != "Instruction" and found:
            kib = int(found[1]) * _UNITS[found[2].upper()] // 1024  # without a unit it is in bytes, as lscpu reads it
            if kib:
                sizes[level] = kib
    return sizes


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _hexadecimal(text: str | _Facts, key: str = "") -> int:
    """The value of a number such as ``0x41``; 0 where it is none."""
    digits = text if isinstance(text, str) else text.get(key, [""])[0]
    return int(digits, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,32}", digits) else 0
