"""CPU quotas of control groups: a quota of fewer cores than threads throttles timed programs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hwnas.runner.memory import content

_V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
_DEEPEST = 8  # groups below a mount; a user's session is 3 to 6 deep, a pod 4
# The files that are read here, as patterns below the root folder, where control groups are mounted as systemd does it.
FILES = (
    *("proc/self/cgroup", "proc/self/mountinfo"),
    *("sys/fs/cgroup/" + "*/" * depth + "cpu.max" for depth in range(_DEEPEST + 1)),
    *("sys/fs/cgroup/cpu*/" + "*/" * depth + name for depth in range(_DEEPEST + 1) for name in _V1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The CPU time per wall-clock time that a control group allows.

    Attributes:
        cores: the limit, e.g. 1.5.
        source: the file with the limit.
    """

    cores: float
    source: str


def cpu_quota(root: Path = Path("/")) -> Quota | None:
    """The smallest quota of this process's control groups (v1 and v2) and their ancestors; None if there is none.

    Args:
        root: replaces ``/``: `proc/self/cgroup`, `proc/self/mountinfo` and the mounted groups are read below it.
    """
    found: list[Quota] = []
    mounts = _mounts(content(root / "proc/self/mountinfo"))
    for line in content(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for kind, names, above, place in mounts:
            if (
                kind == "cgroup2"
                if not controllers
                else kind == "cgroup" and "cpu" in names & {*controllers.split(",")}
            ):
                found += _upwards(root, place, _below(path, above), kind)
    return min(found, key=lambda quota: quota.cores, default=None)


def _mounts(mountinfo: str) -> list[tuple[str, set[str], str, str]]:
    """File system type, controllers, group and place of each mount of control groups."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) >= 5 and kind in ("cgroup", "cgroup2"):
            found.append((kind, set((rest or [""])[-1].split(",")), _plain(fields[3]), _plain(fields[4])))
    return found


def _plain(field: str) -> str:
    """A path with the octal escapes of mountinfo decoded."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _below(path: str, above: str) -> tuple[str, ...]:
    """A group's folders below the mount that shows `above`; empty if the group is outside it."""
    own, top = Path(path).parts, Path(above).parts
    below = own[len(top) :] if own[: len(top)] == top else ()
    return () if ".." in below else below


def _upwards(root: Path, place: str, folders: tuple[str, ...], kind: str) -> list[Quota]:
    """The quotas of a group and its ancestors."""
    found = []
    for depth in range(len(folders), -1, -1):
        folder = Path(place, *folders[:depth])
        here = root / str(folder).lstrip("/")
        if kind == "cgroup2":
            source, words = folder / "cpu.max", content(here / "cpu.max").split()
        else:
            source, words = folder / _V1[0], [content(here / name) for name in _V1]
        if len(words) == 2 and all(re.fullmatch(r"\d{1,12}", word) for word in words) and int(words[0]) * int(words[1]):
            found.append(Quota(cores=int(words[0]) / int(words[1]), source=str(source)))
    return found
