"""Names of CPU cores and their classes of speed, from the numbers in ``/proc/cpuinfo``.

Arm reports an implementer and a part instead of a name. Sources: Arm's Technical Reference Manuals (MIDR_EL1), Linux
(arch/arm64/include/asm/cputype.h) and the CPU names of GCC and LLVM.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Class of speed (in processors with several kinds of cores) -> implementer -> part -> name; the fastest class first.
# fmt: off
_PARTS: Mapping[str, Mapping[int, Mapping[int, str]]] = {
    "prime": {
        0x41: {
            0xD44: "Cortex-X1", 0xD4C: "Cortex-X1C", 0xD48: "Cortex-X2", 0xD4E: "Cortex-X3", 0xD82: "Cortex-X4",
            0xD85: "Cortex-X925", 0xD8C: "C1-Ultra", 0xD90: "C1-Premium",
        },
    },
    "big": {
        0x41: {  # Arm
            0xB76: "ARM1176", 0xC08: "Cortex-A8", 0xC09: "Cortex-A9", 0xC0D: "Cortex-A17", 0xC0E: "Cortex-A17",
            0xC0F: "Cortex-A15", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75",
            0xD0B: "Cortex-A76", 0xD0D: "Cortex-A77", 0xD0E: "Cortex-A76AE", 0xD41: "Cortex-A78",
            0xD42: "Cortex-A78AE", 0xD4B: "Cortex-A78C", 0xD47: "Cortex-A710", 0xD4D: "Cortex-A715",
            0xD81: "Cortex-A720", 0xD89: "Cortex-A720AE", 0xD87: "Cortex-A725", 0xD8B: "C1-Pro",
            0xD0C: "Neoverse-N1", 0xD49: "Neoverse-N2", 0xD8E: "Neoverse-N3", 0xD40: "Neoverse-V1",
            0xD4F: "Neoverse-V2", 0xD84: "Neoverse-V3", 0xD83: "Neoverse-V3AE", 0xD4A: "Neoverse-E1",
        },
        0x42: {0x00F: "Brahma-B15", 0x100: "Brahma-B53"},  # Broadcom
        0x43: {0x0AF: "ThunderX2"},  # Cavium
        0x46: {0x001: "A64FX"},  # Fujitsu
        0x48: {0xD01: "TaiShan-v110", 0xD02: "TaiShan-v120", 0xD40: "Cortex-A76"},  # HiSilicon
        0x4E: {0x003: "Denver-2", 0x004: "Carmel"},  # NVIDIA
        0x51: {  # Qualcomm
            0x001: "Oryon", 0x201: "Kryo", 0x205: "Kryo", 0x211: "Kryo",
            0x800: "Kryo-2XX-Gold", 0x802: "Kryo-3XX-Gold", 0x804: "Kryo-4XX-Gold",
        },
        0x53: {0x001: "Exynos-M1", 0x002: "Exynos-M3", 0x003: "Exynos-M4", 0x004: "Exynos-M5"},  # Samsung
        0x61: {  # Apple; every chip has part 0 in a virtual machine
            0x000: "Apple silicon", 0x021: "Firestorm", 0x023: "Firestorm", 0x025: "Firestorm", 0x029: "Firestorm",
            0x031: "Avalanche", 0x033: "Avalanche", 0x035: "Avalanche", 0x039: "Avalanche",
        },
        0x6D: {0xD49: "Azure-Cobalt-100"},  # Microsoft
        0x70: {0x660: "FTC660", 0x661: "FTC661", 0x662: "FTC662", 0x663: "FTC663", 0x664: "FTC664"},  # Phytium
        0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1A"},  # Ampere
    },
    "little": {
        0x41: {
            0xC05: "Cortex-A5", 0xC07: "Cortex-A7", 0xD01: "Cortex-A32", 0xD02: "Cortex-A34", 0xD03: "Cortex-A53",
            0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD06: "Cortex-A65", 0xD43: "Cortex-A65AE",
            0xD46: "Cortex-A510", 0xD80: "Cortex-A520", 0xD88: "Cortex-A520AE", 0xD8F: "Cortex-A320",
            0xD8A: "C1-Nano",
        },
        0x51: {0x801: "Kryo-2XX-Silver", 0x803: "Kryo-3XX-Silver", 0x805: "Kryo-4XX-Silver"},
        0x61: {
            0x020: "Icestorm", 0x022: "Icestorm", 0x024: "Icestorm", 0x028: "Icestorm",
            0x030: "Blizzard", 0x032: "Blizzard", 0x034: "Blizzard", 0x038: "Blizzard",
        },
        0x70: {0x303: "FTC310"},
    },
}
# fmt: on
_CLASSES = tuple({name for parts in kinds.values() for name in parts.values()} for kinds in _PARTS.values())
_BIG = tuple(_PARTS).index("big")

# Cores of servers. The product name of a cloud (Google Compute Engine, Alibaba Cloud ECS) stands for several of them.
SERVER = re.compile(r"Neoverse|Azure|ThunderX|A64FX|TaiShan|Ampere")


def arm_names(cpu: str) -> str:
    """The names of the cores in the CPU text of an Arm host, e.g. ``Cortex-A55 + Cortex-A76``.

    Empty for another text, and if the name of a part is unknown.

    Args:
        cpu: e.g. ``Arm implementer 0x41 part 0xd05 0xd0b`` (`hwnas.targets.Host.cpu_name`).
    """
    found = re.fullmatch(r"Arm implementer (\S+) part (.+)", cpu)
    names = [_name(found[1], part) for part in found[2].split()] if found else []
    return " + ".join(dict.fromkeys(names)) if all(names) else ""


def core_names(cpuinfo: str) -> dict[int, str]:
    """Logical core -> name of its kind, e.g. ``Cortex-A76`` or ``sifive,u74-mc``, as far as it is known.

    Empty for x86, whose CPU name does not distinguish kinds of cores.

    Args:
        cpuinfo: content of ``/proc/cpuinfo``.
    """
    found: dict[int, str] = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        if "isa" in said:  # RISC-V
            name = said.get("uarch") or said.get("model name", "")
        else:
            name = _name(said.get("CPU implementer", ""), said.get("CPU part", ""))
        if name and re.fullmatch(r"\d{1,5}", number := said.get("processor", "")):
            found[int(number)] = name
    return found


def speed_classes(names: Mapping[int, str], cores: Iterable[int]) -> dict[int, int]:
    """Core -> class of speed by its name (`core_names`), 0 for the fastest; an unknown name counts as big."""
    return {core: next((i for i, known in enumerate(_CLASSES) if names.get(core) in known), _BIG) for core in cores}


def _name(implementer: str, part: str) -> str:
    """The name of a core by two numbers such as ``0x41``; empty if it is unknown."""
    if not all(re.fullmatch(r"0x[0-9a-fA-F]{1,4}", text) for text in (implementer, part)):
        return ""
    made_by, number = int(implementer, 16), int(part, 16)
    return next((kinds[made_by][number] for kinds in _PARTS.values() if number in kinds.get(made_by, {})), "")
