"""The state of a CPU that decides its speed: clock, temperature and throttling, as Linux reports them.

Facts that a system does not report are left out: most virtual machines have neither a clock nor a thermal zone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from hwnas.runner.memory import content
from hwnas.targets.linux import text_of

_CPU = "sys/devices/system/cpu"
_THERMAL = "sys/class/thermal"
_RASPBERRY_PI = "sys/devices/platform/soc*/soc*:firmware/get_throttled"

# The files that are read here, as patterns below the root folder.
FILES = (
    *(f"{_CPU}/cpu[0-9]*/cpufreq/{name}" for name in ("scaling_governor", "scaling_cur_freq", "scaling_max_freq")),
    f"{_CPU}/cpu[0-9]*/cpufreq/cpuinfo_max_freq",
    f"{_CPU}/cpu[0-9]*/thermal_throttle/core_throttle_count",
    *(f"{_THERMAL}/thermal_zone*/{name}" for name in ("type", "temp")),
    *(f"{_THERMAL}/cooling_device*/{name}" for name in ("type", "cur_state", "max_state")),
    _RASPBERRY_PI,
)

_MOST = 8  # zones in a fact; a phone has 50 and more
_PLAUSIBLE = (-40.0, 150.0)  # °C; unused sensors report e.g. -274 or exactly 0
# Cooling devices that slow the CPU; others are fans and the clocks of GPUs and memory.
_SLOWS_CPU = re.compile(r"(?!.*fan).*(cpu|processor|thermal-idle|powerclamp)", re.IGNORECASE)
# Bits of the Raspberry Pi's firmware; the same ones 16 higher are set until the next start.
_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


def cpu_state(root: Path = Path("/"), *, core: int = 0) -> dict[str, str]:
    """Clock of a core, temperatures and throttling of a CPU, as facts of a measurement.

    Keys: ``scaling_governor``, ``scaling_cur_freq``, ``scaling_max_freq``, ``cpuinfo_max_freq`` (kHz), as Linux names
    them; ``temperatures_c``, e.g. ``cpu-thermal 61.3, gpu-thermal 58.0``, the hottest first; ``throttling``, e.g.
    ``cpufreq-cpu4 at 3 of 8`` or ``none``.

    Args:
        root: replaces ``/``.
        core: logical core whose clock is read: kinds of cores differ.
    """
    clock = root / f"{_CPU}/cpu{core}/cpufreq"
    names = ("scaling_governor", "scaling_cur_freq", "scaling_max_freq", "cpuinfo_max_freq")
    found = {name: text_of(clock / name) for name in names}
    hottest = sorted(_temperatures(root), key=lambda zone: -zone[1])[:_MOST]
    found["temperatures_c"] = ", ".join(f"{name} {celsius:.1f}" for name, celsius in hottest)
    reported = [*_limits_now(root), *_limits_before(root, core)]
    found["throttling"] = ", ".join(filter(None, reported)) or ("none" if reported else "")
    return {name: text for name, text in found.items() if text}


def slowed_by(root: Path = Path("/")) -> str:
    """What slows the CPU now, e.g. ``cpufreq-cpu4 at 3 of 8, under-voltage``; empty if the system reports nothing."""
    return ", ".join(filter(None, _limits_now(root)))


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    """Name and temperature in °C of each thermal zone."""
    for zone in _found(root, f"{_THERMAL}/thermal_zone*"):
        celsius = (_number(zone / "temp") or 0) / 1000
        if celsius and _PLAUSIBLE[0] <= celsius <= _PLAUSIBLE[1]:
            yield text_of(zone / "type") or zone.name, celsius


def _limits_now(root: Path) -> Iterator[str]:
    """What slows the CPU now; an empty text for each reporter of throttling that reports none."""
    for device in _found(root, f"{_THERMAL}/cooling_device*"):
        name, state = text_of(device / "type") or "", _number(device / "cur_state")
        if _SLOWS_CPU.match(name) and state is not None:
            yield f"{name} at {state} of {text_of(device / 'max_state')}" if state > 0 else ""
    for bits in _firmware(root):
        yield ", ".join(name for i, name in enumerate(_BITS) if bits >> i & 1)


def _limits_before(root: Path, core: int) -> Iterator[str]:
    """The same of the time since the system started."""
    for bits in _firmware(root):
        yield ", ".join(f"{name} since the start" for i, name in enumerate(_BITS) if bits >> (i + 16) & 1)
    count = _number(root / f"{_CPU}/cpu{core}/thermal_throttle/core_throttle_count")
    if count is not None:
        yield f"throttled {count} times since the start" if count else ""


def _firmware(root: Path) -> Iterator[int]:
    """The bits that the firmware of a Raspberry Pi reports."""
    for path in _found(root, _RASPBERRY_PI):
        if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text := content(path)):
            yield int(text, 16)


def _found(root: Path, pattern: str) -> list[Path]:
    """The paths that match a pattern; by number."""
    try:
        paths = list(root.glob(pattern))
    except OSError:
        return []
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def _number(path: Path) -> int | None:
    text = content(path)
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else None
