"""Topology of the logical cores (physical cores, caches, speeds), and the choice of cores for timing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.affinity import cores_text
from hwnas.runner.memory import content
from hwnas.targets.cores import core_names, speed_classes

_MOST = 2**16  # larger core numbers in a file are garbage
# Cores whose speeds differ by less are of one kind. The favoured cores of Turbo Boost Max and of AMD's preferred cores
# are 2 to 5% faster than others; an X1 is 15% faster than an A78, a performance core 25% and more than an efficiency
# core.
_STEP = 0.1
# Files with a core's speed; the first one that distinguishes cores is used.
_SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq", "acpi_cppc/highest_perf")
# Names of the performance counters of the core types of an Intel hybrid CPU in Linux.
_INTEL = {"cpu_core": "performance", "cpu_atom": "efficiency", "cpu_lowpower": "low-power"}
_CPU = "sys/devices/system/cpu"
# The files that are read here, as patterns below the root folder.
FILES = (
    *("proc/cpuinfo", f"{_CPU}/online", f"{_CPU}/cpu[0-9]*/online"),
    *(f"{_CPU}/cpu[0-9]*/{name}" for name in _SPEEDS),
    *(f"{_CPU}/cpu[0-9]*/topology/{name}" for name in ("physical_package_id", "core_cpus_list", "core_id", "die_id")),
    f"{_CPU}/cpu[0-9]*/topology/thread_siblings_list",
    *(f"{_CPU}/cpu[0-9]*/cache/index*/{name}" for name in ("level", "type", "shared_cpu_list")),
    *(f"sys/devices/{kind}/cpus" for kind in _INTEL),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """A logical core. If the system does not report a part, it is assumed unshared (`physical`) or shared (the others).

    Attributes:
        number: as in CPU affinities.
        package: socket.
        physical: the lowest logical core on the same physical core.
        cache: the lowest logical core that shares its last-level cache; -1 if unknown.
        kind: 0 for the fastest kind of core on this host, 1 for the next.
    """

    number: int
    package: int = 0
    physical: int
    cache: int = -1
    kind: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The online logical cores by number, and the name of each kind; see `read_topology`."""

    cores: tuple[Core, ...] = ()
    kinds: tuple[str, ...] = ("",)

    def document(self) -> dict[str, object]:
        """The same as lists of cores, for `hwnas devices show this --json`."""
        return {
            "online": cores_text(core.number for core in self.cores),
            "packages": _groups(self.cores, lambda core: core.package),
            "physical_cores": _groups(self.cores, lambda core: core.physical),
            "kinds": [
                {"kind": self.kinds[rank] or "all alike", "cores": cores}
                for rank, cores in enumerate(_groups(self.cores, lambda core: core.kind))
            ],
            "cache_domains": _groups((core for core in self.cores if core.cache >= 0), lambda core: core.cache),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Cores for timing.

    Attributes:
        cores: numbers, ascending, one per thread; empty if the system cannot pin threads.
        note: caveats for readers of the timings: shared physical cores, several kinds; empty if none.
    """

    cores: tuple[int, ...] = ()
    note: str = ""

    @property
    def text(self) -> str:
        """The numbers as Linux writes them, e.g. ``4-7``."""
        return cores_text(self.cores)


def parse_cores(text: str) -> tuple[int, ...] | None:
    """The numbers in a list such as ``0-3,8``, ascending; None if it is not one."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < _MOST:
            return None
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def read_topology(root: Path = Path("/")) -> Topology:
    """The topology that Linux reports; missing, unreadable or invalid entries are left out.

    Args:
        root: replaces ``/``: `FILES` are read below it.
    """
    base = root / _CPU
    try:
        present = sorted(int(path.name[3:]) for path in base.glob("cpu[0-9]*") if path.name[3:].isdigit())
    except OSError:
        present = []
    listed = _cores(base / "online")
    online = listed or [n for n in present if content(base / f"cpu{n}" / "online") != "0"]
    kind_of, names = _kinds(root, online)
    named: dict[tuple[int, int, int], int] = {}
    cores = []
    for number in online:
        folder = base / f"cpu{number}" / "topology"
        package = _number(folder / "physical_package_id")
        shared = _around(number, folder / "core_cpus_list", folder / "thread_siblings_list")
        core_id = _number(folder / "core_id")
        if not shared and core_id is not None and package is not None:
            # Core ids restart on each die.
            shared = (named.setdefault((package, _number(folder / "die_id") or 0, core_id), number),)
        cores.append(
            Core(
                number=number,
                package=package or 0,
                physical=min(shared, default=number),
                cache=_last_cache(base / f"cpu{number}" / "cache", number),
                kind=kind_of.get(number, 0),
            )
        )
    return Topology(cores=tuple(cores), kinds=names)


def choose_cores(topology: Topology, allowed: Collection[int], threads: int) -> Chosen:
    """Choose a logical core for each thread of a program.

    Each thread gets a physical core; two share one only if there are fewer physical cores than threads. Preferred are
    fast cores, then cores that share a package and a last-level cache, then those with the highest numbers, because
    interrupts mostly go to the lowest.

    Args:
        topology: of this host; cores that are not in it are treated as equal.
        allowed: cores that may be used, at least as many as threads.
        threads: number of threads of the program.
    """
    known = {core.number: core for core in topology.cores}
    slots: dict[int, list[Core]] = defaultdict(list)
    for number in sorted(allowed, reverse=True):
        core = known.get(number) or Core(number=number, physical=number)
        slots[core.physical].append(core)
    taken: list[Core] = []
    # The first logical core of every physical core, then the second ones.
    for turn in range(max(map(len, slots.values()))):
        layer = [cores[turn] for cores in slots.values() if turn < len(cores)]
        for kind in sorted({core.kind for core in layer}):
            alike = [core for core in layer if core.kind == kind]
            taken += _together(alike, threads - len(taken), (lambda core: core.package, lambda core: core.cache))
    physical = len({core.physical for core in taken})
    notes = []
    if physical < len(taken):
        notes.append(f"{threads} threads share {physical} physical cores")
    kinds = sorted({core.kind for core in taken})
    if len(kinds) > 1:
        notes.append(f"they are of {len(kinds)} kinds: {', '.join(topology.kinds[kind] for kind in kinds)}")
    return Chosen(cores=tuple(sorted(core.number for core in taken)), note="; ".join(notes))


def _together(cores: Sequence[Core], count: int, levels: tuple[Callable[[Core], int], ...]) -> list[Core]:
    """At most `count` cores, from as few packages and then caches as possible, the highest numbers first."""
    rest = sorted(cores, key=lambda core: core.number)
    if not levels or len(rest) <= count:
        return rest[max(len(rest) - count, 0) :]
    taken: list[Core] = []
    while len(taken) < count:
        groups: dict[int, list[Core]] = defaultdict(list)
        for core in rest:
            groups[levels[0](core)].append(core)
        needed = count - len(taken)
        group = max(groups.values(), key=lambda group: (min(len(group), needed), group[-1].number))
        taken += _together(group, needed, levels[1:])
        rest = [core for core in rest if core not in group]
    return taken


def _kinds(root: Path, online: Sequence[int]) -> tuple[dict[int, int], tuple[str, ...]]:
    """The kind of each core, 0 for the fastest, and the names of the kinds."""
    names = core_names(content(root / "proc/cpuinfo"))
    intel = {n: rank for rank, folder in enumerate(_INTEL) for n in _cores(root / "sys/devices" / folder / "cpus")}
    file, speeds = "", dict[int, int]()
    for name in _SPEEDS:
        read = {number: _number(root / _CPU / f"cpu{number}" / name) for number in online}
        known = {number: speed for number, speed in read.items() if speed}
        if len(known) == len(online) and len(set(_steps(known.values()).values())) > 1:
            file, speeds = name, known
            break
    # A capacity includes the work per cycle. A clock does not: an A53 of 1.9 GHz is slower than an A73 of 1.8 GHz.
    types = intel if intel or file == "cpu_capacity" else speed_classes(names, online)
    steps = _steps(speeds.values())
    keys = {n: (types.get(n, 0), steps[speeds[n]] if speeds else 0) for n in online}
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys.values())))}
    texts = []
    for key in ranks:
        alike = [n for n in online if keys[n] == key]
        fastest = max((speeds[n] for n in alike if speeds), default=0)
        text = list(_INTEL.values())[key[0]] if intel else " + ".join(sorted({names[n] for n in alike if n in names}))
        texts.append(", ".join(filter(None, (text, _speed_text(file, fastest)))))
    return {number: ranks[key] for number, key in keys.items()}, tuple(texts) or ("",)


def _steps(speeds: Iterable[int]) -> dict[int, int]:
    """Speed -> kind: 0 for the fastest and similar speeds, 1 for the next."""
    found: dict[int, int] = {}
    step, before = 0, 0
    for speed in sorted(set(speeds), reverse=True):
        step += speed < before * (1 - _STEP)
        found[speed], before = step, speed
    return found


def _speed_text(file: str, speed: int) -> str:
    if file == "cpufreq/cpuinfo_max_freq":  # in kHz
        return f"{speed / 1e6:.2f} GHz"
    return f"{'capacity' if file == 'cpu_capacity' else 'performance level'} {speed}" if file else ""


def _last_cache(folder: Path, number: int) -> int:
    """The lowest logical core that shares the last-level cache; -1 if sysfs shows none."""
    found: dict[int, int] = {}
    try:
        indices = sorted(folder.glob("index[0-9]*"))
    except OSError:
        indices = []
    for index in indices:
        level, shared = _number(index / "level"), _around(number, index / "shared_cpu_list")
        if level is not None and shared and content(index / "type") != "Instruction":
            found[level] = min(shared)
    return found[max(found)] if found else -1


def _around(number: int, *files: Path) -> tuple[int, ...]:
    """The first of these lists of cores that this core is in; empty if there is none."""
    return next((cores for cores in map(_cores, files) if number in cores), ())


def _groups(cores: Iterable[Core], key: Callable[[Core], int]) -> list[str]:
    """Cores grouped by a key, in the order of the keys."""
    found: dict[int, list[int]] = defaultdict(list)
    for core in cores:
        found[key(core)].append(core.number)
    return [cores_text(found[value]) for value in sorted(found)]


def _cores(path: Path) -> tuple[int, ...]:
    return parse_cores(content(path)) or ()


def _number(path: Path) -> int | None:
    text = content(path)
    return int(text) if re.fullmatch(r"\d{1,12}", text) else None  # -1 means unknown
