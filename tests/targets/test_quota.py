"""Quotas of control groups, in trees made here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hwnas.targets import cpu_quota

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {root} /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
)


def quota(tmp_path: Path, cgroup: str, mountinfo: str, files: Mapping[str, str]) -> tuple[float, str] | None:
    for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    found = cpu_quota(tmp_path)
    return (found.cores, found.source) if found else None


@pytest.mark.parametrize(
    ("cgroup", "root", "files", "expected"),
    [
        # A container with its own view: the group is the root of what is mounted.
        ("0::/", "/", {"cpu.max": "150000 100000"}, (1.5, "cpu.max")),
        ("0::/", "/", {"cpu.max": "max 100000"}, None),
        ("0::/", "/", {}, None),
        # A service: the least of its own and of all above it.
        (
            "0::/a.slice/b",
            "/",
            {"a.slice/b/cpu.max": "max 100000", "a.slice/cpu.max": "50000 100000"},
            (0.5, "a.slice/cpu.max"),
        ),
        ("0::/a/b", "/", {"a/b/cpu.max": "10000 20000", "a/cpu.max": "90000 100000"}, (0.5, "a/b/cpu.max")),
        # A container that sees the host's names but only its own group.
        ("0::/docker/x", "/docker/x", {"cpu.max": "200000 100000"}, (2.0, "cpu.max")),
        # A group outside of what is mounted.
        ("0::/../../other", "/", {"cpu.max": "300000 100000", "other/cpu.max": "1 100000"}, (3.0, "cpu.max")),
        ("0::/", "/", {"cpu.max": "garbage"}, None),
        ("0::/", "/", {"cpu.max": "0 0"}, None),
        ("0::/", "/", {"cpu.max": "-5 100000"}, None),
    ],
)
def test_version_2(
    tmp_path: Path, cgroup: str, root: str, files: Mapping[str, str], expected: tuple[float, str] | None
) -> None:
    placed = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    found = quota(tmp_path, cgroup, V2.format(root=root), placed)
    assert found == (expected and (expected[0], f"/sys/fs/cgroup/{expected[1]}"))


@pytest.mark.parametrize(
    ("cgroup", "root", "files", "expected"),
    [
        ("4:cpu,cpuacct:/\n3:cpuset:/", "/", {"": ("-1", "100000")}, None),
        ("4:cpu,cpuacct:/docker/x\n3:cpuset:/", "/docker/x", {"": ("150000", "100000")}, 1.5),
        ("4:cpu,cpuacct:/docker/x", "/", {"": ("-1", "100000"), "docker/x": ("80000", "40000")}, 2.0),
        ("4:cpu,cpuacct:/kube/pod", "/", {"kube/pod": ("-1", "100000"), "kube": ("25000", "100000")}, 0.25),
        ("3:cpuset:/docker/x", "/", {"": ("1000", "100000")}, None),  # not its controller
        ("4:cpu,cpuacct:/", "/", {"": ("1000", "")}, None),
    ],
)
def test_version_1(
    tmp_path: Path, cgroup: str, root: str, files: Mapping[str, tuple[str, str]], expected: float | None
) -> None:
    placed = {}
    for folder, (limit, period) in files.items():
        placed[f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_quota_us"] = limit
        placed[f"sys/fs/cgroup/cpu,cpuacct/{folder}/cpu.cfs_period_us"] = period
    found = quota(tmp_path, cgroup, V1.format(root=root), placed)
    assert (found and found[0]) == expected


def test_both_versions_at_once(tmp_path: Path) -> None:
    mounts = V1.format(root="/") + "\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "120000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    assert quota(tmp_path, "2:cpu,cpuacct:/\n0::/", mounts, files) == (
        1.2,
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us",
    )


@pytest.mark.parametrize(
    "text", ["", "\n\n", "garbage", ":::", "0:", "0::", " - cgroup2", "1 2 3 / relative - cgroup2 x"]
)
def test_garbage_is_left_out(tmp_path: Path, text: str) -> None:
    assert quota(tmp_path, text, text, {}) is None
    assert quota(tmp_path, "0::/", f"{text}\n{V2.format(root='/')}", {"sys/fs/cgroup/cpu.max": "100000 100000"})


def test_a_place_with_a_blank(tmp_path: Path) -> None:
    mount = "31 23 0:28 / /my\\040groups rw - cgroup2 cgroup2 rw"
    assert quota(tmp_path, "0::/", mount, {"my groups/cpu.max": "100000 100000"}) == (1.0, "/my groups/cpu.max")


def test_a_place_that_is_no_path(tmp_path: Path) -> None:
    assert quota(tmp_path, "0::/", "31 23 0:28 / /my\\000groups rw - cgroup2 cgroup2 rw", {}) is None


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
