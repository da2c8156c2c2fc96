"""Topologies as Linux shows them, in trees made here."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from hwnas.targets.topology import Chosen, Topology, choose_cores, parse_cores, read_topology

Tree = Callable[[Mapping[str, object]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files of ``/sys`` below a root folder."""

    def write(files: Mapping[str, object]) -> Path:
        for name, content in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return tmp_path

    return write


def machine(
    siblings: Sequence[str], *, packages: Sequence[int] = (), l3: Sequence[str] = (), **per_core: Sequence[object]
) -> dict[str, object]:
    """Files of a machine: for each logical core its siblings, package, sharers of the L3, and files such as a speed."""
    base = "devices/system/cpu"
    files: dict[str, object] = {f"{base}/online": f"0-{len(siblings) - 1}"}
    for n, shared in enumerate(siblings):
        cpu = f"{base}/cpu{n}"
        files[f"{cpu}/topology/core_cpus_list"] = shared
        files[f"{cpu}/topology/physical_package_id"] = packages[n] if packages else 0
        for index, (level, kind, sharers) in enumerate(
            [(1, "Data", shared), (1, "Instruction", shared), (2, "Unified", shared)]
            + ([(3, "Unified", l3[n])] if l3 else [])
        ):
            for name, value in (("level", level), ("type", kind), ("shared_cpu_list", sharers)):
                files[f"{cpu}/cache/index{index}/{name}"] = value
        for name, values in per_core.items():
            files[f"{cpu}/{name.replace('__', '/')}"] = values[n]
    return files


# 4 performance cores of two threads, then 4 efficiency cores; the first two performance cores are favoured ones.
ALDER_LAKE = {
    **machine(
        ["0-1", "0-1", "2-3", "2-3", "4-5", "4-5", "6-7", "6-7", *"89", "10", "11"],
        l3=["0-11"] * 12,
        cpufreq__cpuinfo_max_freq=[5_400_000] * 4 + [5_200_000] * 4 + [3_900_000] * 4,
    ),
    "devices/cpu_core/cpus": "0-7",
    "devices/cpu_atom/cpus": "8-11",
}
FAR_APART = machine([f"{n % 8},{n % 8 + 8}" for n in range(16)], l3=["0-15"] * 16)
TWO_CCX = machine([str(n) for n in range(8)], l3=["0-3"] * 4 + ["4-7"] * 4)
# As device trees of the board give them: 4 A55 and two pairs of A76 of slightly different clocks; L3 shared by all.
RK3588 = machine([str(n) for n in range(8)], l3=["0-7"] * 8, cpu_capacity=[414] * 4 + [1024] * 2 + [1003] * 2)
PHONE = machine([str(n) for n in range(8)], cpu_capacity=[250] * 4 + [855] * 3 + [1024])
SOCKETS = machine(  # even cores on one socket, odd ones on the other
    [str(n) for n in range(8)], packages=[0, 1] * 4, l3=["0,2,4,6", "1,3,5,7"] * 4
)
EIGHT = tuple(range(8))


@pytest.mark.parametrize(
    ("files", "allowed", "threads", "cores"),
    [
        # On base: 11, then 10-11, efficiency cores all.
        (ALDER_LAKE, range(12), 1, (7,)),
        (ALDER_LAKE, range(12), 2, (5, 7)),
        (ALDER_LAKE, range(12), 4, (1, 3, 5, 7)),
        # Physical cores before second threads, as slow as they are.
        (ALDER_LAKE, range(12), 6, (1, 3, 5, 7, 10, 11)),
        (ALDER_LAKE, range(8, 12), 2, (10, 11)),
        (ALDER_LAKE, (0, 1, 2, 9), 2, (1, 2)),
        (FAR_APART, range(16), 1, (15,)),
        (FAR_APART, range(16), 8, EIGHT[:0] + tuple(range(8, 16))),
        (FAR_APART, (0, 1, 8, 9), 2, (8, 9)),
        # Two threads of one physical core only where there is no other.
        (FAR_APART, (0, 3, 8), 2, (3, 8)),
        (TWO_CCX, EIGHT, 2, (6, 7)),
        (TWO_CCX, EIGHT, 5, (3, 4, 5, 6, 7)),
        # A cpuset with holes leaves two cores of the first cache, and one of the second: on base 3 and 7.
        (TWO_CCX, (1, 3, 7), 2, (1, 3)),
        (TWO_CCX, (0, 1, 2, 6, 7), 4, (0, 1, 2, 7)),
        (RK3588, EIGHT, 1, (7,)),
        (RK3588, EIGHT, 4, (4, 5, 6, 7)),
        (RK3588, EIGHT, 5, (3, 4, 5, 6, 7)),
        (PHONE, EIGHT, 1, (7,)),
        (PHONE, EIGHT, 2, (6, 7)),
        (SOCKETS, EIGHT, 1, (7,)),
        (SOCKETS, EIGHT, 2, (5, 7)),  # on base 6 and 7: two sockets
        (SOCKETS, EIGHT, 4, (1, 3, 5, 7)),
        # A virtual machine that shows no topology: the last ones, as ever.
        ({}, range(4), 2, (2, 3)),
        ({"devices/system/cpu/online": "0-3"}, range(4), 2, (2, 3)),
        ({}, (1, 4, 6), 2, (4, 6)),
    ],
)
def test_which_cores_are_chosen(
    tree: Tree, files: Mapping[str, object], allowed: Sequence[int], threads: int, cores: tuple[int, ...]
) -> None:
    assert choose_cores(read_topology(tree(files)), set(allowed), threads).cores == cores


def test_big_cores_that_have_the_low_numbers(tree: Tree) -> None:
    files = machine(list("0123"), cpu_capacity=[1024, 1024, 446, 446])
    assert choose_cores(read_topology(tree(files)), range(4), 1).cores == (1,)


def test_what_must_be_known_of_the_cores_is_said(tree: Tree) -> None:
    topology = read_topology(tree(ALDER_LAKE))
    assert choose_cores(topology, range(12), 4).note == ""
    assert choose_cores(topology, range(12), 5).note == (
        "they are of 2 kinds: performance, 5.40 GHz, efficiency, 3.90 GHz"
    )
    shared = choose_cores(topology, (0, 1, 2), 3)
    assert shared == Chosen(cores=(0, 1, 2), note="3 threads share 2 physical cores")
    assert choose_cores(topology, range(12), 12).note.startswith(
        "12 threads share 8 physical cores; they are of 2 kinds"
    )


def test_the_topology_in_lists(tree: Tree) -> None:
    assert read_topology(tree(ALDER_LAKE)).document() == {
        "online": "0-11",
        "packages": ["0-11"],
        "physical_cores": ["0-1", "2-3", "4-5", "6-7", "8", "9", "10", "11"],
        "kinds": [
            {"kind": "performance, 5.40 GHz", "cores": "0-7"},
            {"kind": "efficiency, 3.90 GHz", "cores": "8-11"},
        ],
        "cache_domains": ["0-11"],
    }
    assert Topology().document() == {
        "online": "", "packages": [], "physical_cores": [], "kinds": [], "cache_domains": [],
    }  # fmt: skip


def test_siblings_by_their_ids_where_there_are_no_lists(tree: Tree) -> None:
    """Old kernels; ids of cores count anew in each package and on each die."""
    files: dict[str, object] = {"devices/system/cpu/online": "0-7"}
    for n in range(8):
        folder = f"devices/system/cpu/cpu{n}/topology"
        files |= {f"{folder}/core_id": n % 2, f"{folder}/physical_package_id": n // 4, f"{folder}/die_id": n % 4 // 2}
        if n % 4 < 2:
            del files[f"{folder}/die_id"]
    lists = read_topology(tree(files)).document()
    assert lists["physical_cores"] == [str(n) for n in range(8)]
    files = {name: 0 if name.endswith(("core_id", "die_id")) else content for name, content in files.items()}
    assert read_topology(tree(files)).document()["physical_cores"] == ["0-3", "4-7"]


def test_an_offline_core_is_left_out(tree: Tree) -> None:
    files = {**TWO_CCX, "devices/system/cpu/online": "0-2,4-7"}
    assert [core.number for core in read_topology(tree(files)).cores] == [0, 1, 2, 4, 5, 6, 7]
    without_list = {name: content for name, content in TWO_CCX.items() if not name.endswith("cpu/online")}
    (tree(without_list) / "sys/devices/system/cpu/online").unlink()
    root = tree(
        {"devices/system/cpu/cpu3/online": 0, "devices/system/cpu/cpu4/online": 1, "devices/system/cpu/cpuidle/x": ""}
    )
    assert [core.number for core in read_topology(root).cores] == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("garbage", ["", "-1", "garbage", "3-1", "0-99999999", "0-,", "\x00", "9" * 30])
def test_garbage_is_left_out(tree: Tree, garbage: str) -> None:
    files = dict.fromkeys(machine(list("0123"), l3=["0-3"] * 4, cpu_capacity=[1] * 4), garbage)
    topology = read_topology(tree({**files, "devices/cpu_core/cpus": garbage}))
    assert choose_cores(topology, range(4), 2).cores == (2, 3)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENODEV])
def test_a_file_that_cannot_be_read_is_left_out(tree: Tree, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real = tree({**ALDER_LAKE, "devices/system/cpu/cpu0/cache/index4/level": "4"}), Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in ("physical_package_id", "type", "core_cpus_list"):
            raise OSError(code, "refused")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert choose_cores(read_topology(root), range(12), 1).cores == (7,)


def test_bytes_that_are_no_text(tree: Tree) -> None:
    root = tree(TWO_CCX)
    (root / "sys/devices/system/cpu/cpu0/topology/core_cpus_list").write_bytes(b"\xff\xfe\xfa")
    assert read_topology(root).cores[0].physical == 0


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-3,8", (0, 1, 2, 3, 8)),
        ("5", (5,)),
        (" 2, 0 \n", (0, 2)),
        ("1,1", (1,)),
        ("", None),
        ("a", None),
        ("3-1", None),
    ],
)
def test_lists_of_cores(text: str, cores: tuple[int, ...] | None) -> None:
    assert parse_cores(text) == cores


def test_this_machine() -> None:
    topology = read_topology()
    numbers = {core.number for core in topology.cores} or {0}
    assert len(choose_cores(topology, numbers, len(numbers)).cores) == len(numbers)
