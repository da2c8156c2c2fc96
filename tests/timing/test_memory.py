"""Programs that do not fit into the memory together are timed in groups."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import OutOfMemory
from hwnas.files import Journal
from hwnas.runner import memory
from hwnas.runner.opened import _even
from hwnas.targets import Recipe
from hwnas.timing import Protocol, time_programs

MIB = 2**20
PROTOCOL = Protocol(visit_ms=1e-3, session_passes=4, min_sessions=3, max_sessions=3, tolerance=1e9, max_seconds=1e9)


class Board:
    """A simulated machine: sessions take memory while they are open, and every run is slowed by the moment.

    Attributes:
        open: names of the programs that are open.
        most_open: how many were at once.
        groups: names of the open programs at each run that follows an opening, in the order in which they came.
        opened: how many sessions were opened.
    """

    def __init__(self, memory_mib: int, size_mib: int = 30, drift: Callable[[int], float] = lambda _: 1.0) -> None:
        self.memory_mib, self.size_mib, self.drift = memory_mib, size_mib, drift
        self.open: list[str] = []
        self.most_open = self.opened = self.runs = 0
        self.groups: list[frozenset[str]] = []
        self.rng = np.random.default_rng(0)

    def available_bytes(self) -> int:
        return (self.memory_mib - self.size_mib * len(self.open)) * MIB

    def run(self, own_ms: float) -> float:
        group = frozenset(self.open)
        if not self.groups or self.groups[-1] != group:
            self.groups.append(group)
        self.runs += 1
        return own_ms * self.drift(self.runs) * (1 + 0.003 * self.rng.standard_normal())


class FakeSession:
    opens_in_threads = False
    shape = (1, 2)
    board: Board

    def __init__(self, program: Path, recipe: Recipe) -> None:
        self.name, self.recipe, self.program = program.name, recipe, program
        self.board.open.append(self.name)
        self.board.most_open = max(self.board.most_open, len(self.board.open))
        self.board.opened += 1

    def again(self) -> FakeSession:
        return type(self)(self.program, self.recipe)

    def threads(self) -> Nothing:
        return Nothing()

    def noise(self, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(self.shape)

    def bind_noise(self, rng: np.random.Generator) -> float:
        return self.bind(self.noise(rng))

    def bind(self, x: np.ndarray) -> float:
        return own_ms(self.name)

    def time_ms(self, call: float) -> float:
        assert self.name in self.board.open
        return self.board.run(call)

    def close(self) -> None:
        self.board.open.remove(self.name)


class Nothing:
    """A context that does nothing."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def own_ms(name: str) -> float:
    return 0.1 * 1.1 ** int(name[1:])


def programs(count: int) -> dict[str, Path]:
    return {f"p{i}": Path(f"p{i}") for i in range(count)}


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Board], Board]:
    """Puts a board in place of this machine."""
    opened = import_module("hwnas.timing.opened")

    def put(board: Board) -> Board:
        monkeypatch.setattr(FakeSession, "board", board, raising=False)
        monkeypatch.setattr(opened, "open_session", FakeSession)
        monkeypatch.setattr(opened, "session_class", lambda _: FakeSession)
        monkeypatch.setattr(memory, "available_bytes", board.available_bytes)
        return board

    return put


def test_no_more_programs_are_open_than_the_memory_holds(on: Callable[[Board], Board], recipe: Recipe) -> None:
    board = on(Board(memory_mib=512))
    measured = time_programs(programs(40), recipe, PROTOCOL)
    assert measured.passes == 12
    assert all(len(passes) == 12 and all(passes) for passes in measured.samples_ms.values())
    assert 4 < board.most_open < 16  # 16 of 30 MiB would leave 32 MiB
    assert board.open == []
    # Groups of about one size, which are others in every session, and hold all programs in each.
    sizes = [len(group) for group in board.groups]
    assert max(sizes) - min(sizes) <= 2
    per_session = len(sizes) // 3
    sessions = [board.groups[i * per_session : (i + 1) * per_session] for i in range(3)]
    assert all(frozenset().union(*groups) == programs(40).keys() for groups in sessions)
    assert len({frozenset(groups) for groups in sessions}) == 3
    assert measured.order is not None
    assert sorted(measured.order) == [(p, i) for p in range(12) for i in range(40)]


def test_where_all_fit_they_are_open_together(on: Callable[[Board], Board], recipe: Recipe, tmp_path: Path) -> None:
    board = on(Board(memory_mib=4096))
    with Journal(tmp_path / "large", {}) as journal:
        large = time_programs(programs(40), recipe, PROTOCOL, journal=journal)
    assert board.groups == [programs(40).keys()]
    assert board.opened == 3 * 40
    np.testing.assert_array_equal(large._in_time, replace(large, order=None)._in_time)
    assert large.summary() == replace(large, order=None).summary()


@pytest.mark.parametrize("memory_mib", [512, 320])
@pytest.mark.parametrize(
    "drift",
    [
        lambda run: 1.0,
        lambda run: 1.0 + 0.15 * (1 + np.sin(run / 900)),
        lambda run: 1.0 + 0.4 * run / 12_000,
        lambda run: 1.0 if run < 4_000 else 1.3,
        lambda run: 1.4 if run // 700 % 2 else 1.0,
    ],
    ids=["steady", "wandering", "creeping", "stepping", "alternating"],
)
def test_no_group_keeps_what_slowed_it(
    on: Callable[[Board], Board], recipe: Recipe, drift: Callable[[int], float], memory_mib: int
) -> None:
    """The drift of the machine is taken out across groups: figures are those of a steady machine, up to one factor."""
    protocol = replace(PROTOCOL, session_passes=8, min_runs=6, max_runs=6)
    board = on(Board(memory_mib=memory_mib, drift=drift))
    measured = time_programs(programs(40), recipe, protocol)
    assert board.most_open <= memory_mib // 30
    relative = np.array([measured.p25_ms(name) / own_ms(name) for name in measured.samples_ms])
    assert relative.std() / relative.mean() < 0.004
    assert measured.disagreement < 0.015


@pytest.mark.parametrize("stop_at", [3, 70, 175, 300])
def test_groups_are_resumed(on: Callable[[Board], Board], recipe: Recipe, tmp_path: Path, stop_at: int) -> None:
    class Stop(Exception): ...

    def stop(what: str, done: int, total: int) -> None:
        if done == stop_at:
            raise Stop

    board = on(Board(memory_mib=512))
    with pytest.raises(Stop), Journal(tmp_path / "j", {}) as journal:
        time_programs(programs(40), recipe, PROTOCOL, journal=journal, progress=stop)
    assert board.open == []
    board = on(Board(memory_mib=400))  # there may be less memory by then
    with Journal(tmp_path / "j", {}) as journal:
        measured = time_programs(programs(40), recipe, PROTOCOL, journal=journal)
    made = [json.loads(line)["key"] for line in (tmp_path / "j").read_text().splitlines()[1:]]
    assert sorted(made) == sorted(f"{p} p{i}" for p in range(12) for i in range(40))
    assert measured.order == tuple((int(p), int(name[1:])) for p, name in (key.split(" ") for key in made))
    assert board.most_open < 13
    with Journal(tmp_path / "j", {}) as journal:
        assert time_programs(programs(40), recipe, PROTOCOL, journal=journal) == measured


def test_memory_that_shrinks_makes_smaller_groups(on: Callable[[Board], Board], recipe: Recipe) -> None:
    board = on(Board(memory_mib=4096))

    def shrink(what: str, done: int, total: int) -> None:
        if done == 4 * 40:  # after the first session
            board.memory_mib = 30 * 40 + 600

    measured = time_programs(programs(40), recipe, PROTOCOL, progress=shrink)
    assert measured.passes == 12
    assert len(board.groups[0]) == 40
    assert all(len(group) < 40 for group in board.groups[1:])
    assert board.open == []


def test_not_even_one_program_fits(on: Callable[[Board], Board], recipe: Recipe) -> None:
    board = on(Board(memory_mib=512, size_mib=480))
    with pytest.raises(
        OutOfMemory,
        match=r"a program of .*, 'p\d+', does not fit into memory: 512 MiB were available .* 32 MiB are now, "
        r"of which 64 MiB must stay free. Close other programs .* HWNAS_MEMORY_GIB",
    ):
        time_programs(programs(9), recipe, PROTOCOL)
    assert board.open == []
    assert board.opened == 1


@pytest.mark.parametrize(("count", "most", "size"), [(40, 40, 40), (40, 39, 20), (41, 20, 14), (1, 5, 1), (7, 1, 1)])
def test_groups_are_of_about_one_size(count: int, most: int, size: int) -> None:
    assert _even(count, most) == size


# -- how much there is ---------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes the kernel's files: path below /, content."""
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "sys/fs/cgroup")
    monkeypatch.delenv(memory.LIMIT, raising=False)

    def write(path: str, content: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)

    return write


def test_what_the_machine_has(system: Callable[[str, str], None]) -> None:
    assert memory.available_bytes() is None
    system("proc/meminfo", "MemTotal:  2000000 kB\nMemFree:  100 kB\nMemAvailable:  1500000 kB\n")
    assert memory.available_bytes() == 1_500_000 * 1024


@pytest.mark.parametrize(("group", "folder"), [("/", ""), ("/a/b", "a/"), ("/a/b", "a/b/"), ("/not/shown", "")])
def test_what_a_control_group_leaves(system: Callable[[str, str], None], group: str, folder: str) -> None:
    system("proc/meminfo", "MemAvailable:  1500000 kB\n")
    system("proc/self/cgroup", f"0::{group}\n")
    system(f"sys/fs/cgroup/{folder}memory.max", "1000000000\n")
    system(f"sys/fs/cgroup/{folder}memory.current", "700000000\n")
    assert memory.available_bytes() == 300_000_000
    system(f"sys/fs/cgroup/{folder}memory.stat", "anon 5\ninactive_file 50000000\nactive_file 7\n")
    assert memory.available_bytes() == 350_000_000
    system(f"sys/fs/cgroup/{folder}memory.max", "max\n")
    assert memory.available_bytes() == 1_500_000 * 1024


def test_what_a_control_group_of_version_1_leaves(system: Callable[[str, str], None]) -> None:
    system("proc/self/cgroup", "9:name=systemd:/\n7:memory:/docker/x\n3:cpu,cpuacct:/\n0::/\n")
    system("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000000\n")
    system("sys/fs/cgroup/memory/memory.usage_in_bytes", "700000000\n")
    system("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 50000000\n")
    assert memory.available_bytes() == 350_000_000
    system("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory.available_bytes() is None


@pytest.mark.parametrize("controllers", ["memory", "cpuset,memory", "memory,hugetlb"])
def test_controllers_that_are_mounted_together(system: Callable[[str, str], None], controllers: str) -> None:
    system("proc/self/cgroup", f"5:{controllers}:/a\n")
    system(f"sys/fs/cgroup/{controllers}/a/memory.limit_in_bytes", "1000000000\n")
    system(f"sys/fs/cgroup/{controllers}/a/memory.usage_in_bytes", "700000000\n")
    assert memory.available_bytes() == 300_000_000


GARBAGE = [b"garbage", b"0", b":::", b"0::", b"5:memory", b"0::/\xff\xfe", b"0::/" + b"a" * 4000]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_left_out(system: Callable[[str, str], None], tmp_path: Path, line: bytes) -> None:
    system("proc/meminfo", "MemAvailable:  1500000 kB\n")
    system("sys/fs/cgroup/memory.max", "9" * 5000)  # more digits than Python makes an integer of
    system("sys/fs/cgroup/memory.current", "5")
    system("proc/self/cgroup", "")
    (tmp_path / "proc/self/cgroup").write_bytes(line + b"\n\n")
    assert memory.available_bytes() == 1_500_000 * 1024
    (tmp_path / "proc/meminfo").write_bytes(b"Mem\xff: 1 kB\nMemAvailable:  1500000 kB\n")
    assert memory.available_bytes() == 1_500_000 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report the address space of a process")
def test_a_limit_of_the_address_space(system: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    system("proc/meminfo", "MemAvailable:  1500000 kB\n")
    system("proc/self/status", "VmSize:\t  1048576 kB\nVmRSS:\t  1 kB\n")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: {resource.RLIMIT_AS: (2**30 + 2**29, -1)}[kind])
    assert memory.available_bytes() == 2**29
    monkeypatch.setattr(resource, "getrlimit", lambda kind: {resource.RLIMIT_AS: (resource.RLIM_INFINITY, -1)}[kind])
    assert memory.available_bytes() == 1_500_000 * 1024


def test_a_limit_of_ones_own(system: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    system("proc/meminfo", "MemAvailable:  1500000 kB\n")
    monkeypatch.setenv(memory.LIMIT, "1.5")
    with pytest.raises(memory.BadLimit, match=r"HWNAS_MEMORY_GIB is '1.5', but this system does not report"):
        memory.available_bytes()
    system("proc/self/status", "Name:\tpython\nVmRSS:\t  1048576 kB\n")
    assert memory.available_bytes() == 2**29
    monkeypatch.setenv(memory.LIMIT, "0.5")
    assert memory.available_bytes() == 0
    for wrong in ("0", "-1", "nan", "inf", "much"):
        monkeypatch.setenv(memory.LIMIT, wrong)
        with pytest.raises(
            memory.BadLimit, match=rf"HWNAS_MEMORY_GIB is '{wrong}'; it should be .* in GiB, such as 1.5"
        ):
            memory.available_bytes()
