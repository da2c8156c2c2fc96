"""Fewer threads beside other work: a simulated machine, whose clock moves with the steps that are made on it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.training.threads import BusyCores, Threads, training_threads


class Machine:
    """Cores, some of which other work may keep busy, and a training whose threads wait for each other."""

    def __init__(self, cores: int = 2, *, threads: int | None = None, spins: bool = True) -> None:
        self.cores, self.spins = cores, spins
        self.busy, self.now = 0.0, 0.0
        self.count = threads or cores
        self.switched: list[int] = []
        self.threads = Threads(
            self.count, cores, others=lambda: self.busy, switch=self.switch, clock=lambda: self.now
        ).__enter__()

    def switch(self, count: int) -> None:
        self.switched.append(count)
        self.count = count

    @property
    def step_s(self) -> float:
        """As measured on two cores: 271 images a second on both, 127 on one, 8.8 where other work takes one of them."""
        late = self.count > self.cores - round(self.busy)
        return 1.0 / self.count * (30.0 if late and self.spins else 1.0)

    def run(self, seconds: float, busy: float) -> None:
        self.busy = busy
        until = self.now + seconds
        while self.now < until:
            self.now += self.step_s
            self.threads.step()


def test_on_a_quiet_machine_nothing_is_switched() -> None:
    machine = Machine()
    for busy in (0.0, 0.1, 0.45) * 20:
        machine.run(10, busy)
    assert machine.switched == []
    assert machine.threads.noted("loss 1.235") == "loss 1.235"


@pytest.mark.parametrize("quiet_s", [0, 100])
def test_fewer_threads_beside_other_work_and_all_when_it_ends(quiet_s: float) -> None:
    machine = Machine()
    machine.run(quiet_s, 0.0)
    machine.run(100, 0.8)
    assert machine.switched == [1]
    assert machine.threads.noted("loss 1.000") == "loss 1.000, 1 of 2 threads: other work keeps 0.8 of 2 cores busy"
    machine.run(100, 0.0)
    assert machine.switched == [1, 2]
    assert machine.threads.note == ""


def test_as_many_threads_as_cores_are_free() -> None:
    machine = Machine(8)
    machine.run(100, 3.0)
    assert machine.switched == [5]
    machine.run(100, 6.0)
    assert machine.switched == [5, 2]
    machine.run(100, 7.0)
    assert machine.switched == [5, 2, 1]
    few = Machine(8, threads=2)  # three cores are busy, but two are free
    few.run(100, 3.0)
    assert few.switched == []


def test_a_short_disturbance_changes_nothing() -> None:
    machine = Machine()
    for _ in range(20):
        machine.run(30, 0.0)
        machine.run(machine.step_s, 1.0)
    assert machine.switched == []


def test_other_work_that_does_not_slow_the_steps_changes_nothing() -> None:
    machine = Machine(spins=False)
    machine.run(20, 0.0)
    machine.run(100, 1.0)
    assert machine.switched == []


def test_threads_that_are_not_the_remedy_come_back() -> None:
    """Without a quiet window to compare with, fewer are tried; each time later than before."""
    machine = Machine(spins=False)
    machine.run(1000, 1.0)
    assert machine.switched == [1, 2] * (len(machine.switched) // 2)
    assert 2 <= len(machine.switched) <= 24


def test_work_that_comes_and_goes_is_followed_less_and_less() -> None:
    machine = Machine()
    for _ in range(50):
        machine.run(40, 1.0)
        machine.run(20, 0.0)
    assert machine.switched[:2] == [1, 2]
    assert len(machine.switched) <= 9  # of 100 if each change was followed


def test_the_next_training_goes_on_with_fewer() -> None:
    machine = Machine()
    machine.run(100, 1.0)
    machine.threads.__exit__(None, None, None)
    assert machine.count == 2  # what comes after a training has all threads
    with machine.threads:
        assert machine.count == 1


def test_a_trial_ends_with_its_training() -> None:
    machine = Machine()
    while not machine.switched:
        machine.run(0.1, 1.0)
    machine.threads.__exit__(None, None, None)
    with machine.threads:
        assert machine.count == 2


# -- what the system says ----------------------------------------------------------------------------------------------


def test_cores_that_others_keep_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    stat, state = tmp_path / "stat", {"own": 0.0, "now": 0.0}

    def write(*ticks: int) -> None:
        rows = [f"cpu{core} {t} 0 0 {1000 - t} 5 0 0 0 0 0" for core, t in enumerate(ticks)]
        stat.write_text("\n".join([f"cpu {sum(ticks)} 0 0 0 0 0 0 0 0 0", *rows, "intr 1", ""]))

    write(0, 0, 0)
    cores = BusyCores(frozenset({0, 2}), stat=stat, own_s=lambda: state["own"], clock=lambda: state["now"])
    state |= {"own": 2.5, "now": 2.0}
    write(200, 200, 200)  # all three for two seconds; 2.5 of the four seconds on ours are this process's
    assert cores() == pytest.approx(0.75)
    state |= {"own": 6.5, "now": 4.0}
    write(400, 200, 400)
    assert cores() == 0.0
    stat.unlink()
    assert cores() is None


@pytest.mark.parametrize(
    ("device", "processes", "dynamic"), [("cuda", 1, None), ("cpu", 2, None), ("cpu", 1, "false"), ("cpu", 1, "FALSE ")]
)
def test_where_nothing_is_switched(
    monkeypatch: pytest.MonkeyPatch, device: str, processes: int, dynamic: str | None
) -> None:
    monkeypatch.delenv("OMP_DYNAMIC", raising=False)
    if dynamic:
        monkeypatch.setenv("OMP_DYNAMIC", dynamic)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert training_threads(torch.device(device), processes)._others() is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="there is no /proc/stat")
def test_where_threads_follow_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_DYNAMIC", "true")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert training_threads(torch.device("cpu"), 1)._others() is not None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert training_threads(torch.device("cpu"), 1)._others() is None
