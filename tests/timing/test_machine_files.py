"""Cores for timing and facts of a measurement, from the files of a machine."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from boards import write_board

from hwnas.errors import InvalidValue
from hwnas.targets import Chosen, Recipe, Target, describe, read_host
from hwnas.timing.host import check_host, cpu_facts
from hwnas.timing.pinning import cores_of


@pytest.fixture
def rock(tmp_path: Path) -> Path:
    """Four A55 (0-3) and four A76 (4-7), and a quota of 6 cores."""
    return write_board("rock-5b", tmp_path)


def with_(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update=changes)


def test_the_fast_cluster_is_timed_on_by_default(rock: Path, recipe: Recipe) -> None:
    assert cores_of(with_(recipe, threads=4), rock, range(8)) == Chosen(cores=(4, 5, 6, 7))
    assert cores_of(with_(recipe, threads=2), rock, (0, 1, 2, 3, 5)).cores == (3, 5)
    assert cores_of(with_(recipe, threads=2, cores=(0, 1)), rock, range(8)).cores == (0, 1)


@pytest.mark.parametrize(
    ("threads", "cores", "allowed", "said"),
    [
        (9, None, range(8), "the recipe uses 9 threads, but this process may run on 8 cores only"),
        (7, None, range(8), r"the CPU time of 6 cores \(/sys/fs/cgroup/user.slice/cpu.max\)"),
        (1, (7,), range(4), "timed on the cores 7, but this process may not run on 7: it may run on 0-3"),
    ],
)
def test_a_machine_that_cannot_time_a_recipe(
    rock: Path, recipe: Recipe, threads: int, cores: tuple[int, ...] | None, allowed: range, said: str
) -> None:
    with pytest.raises(InvalidValue, match=said):
        cores_of(with_(recipe, threads=threads, cores=cores), rock, allowed)


def test_a_quota_of_version_1(tmp_path: Path, recipe: Recipe) -> None:
    board = write_board("visionfive-2", tmp_path)
    assert cores_of(recipe, board, range(4)).cores == (3,)
    source = r"\(/sys/fs/cgroup/cpu,cpuacct/boards/cpu.cfs_quota_us\)"
    with pytest.raises(InvalidValue, match=rf"uses 2 threads, but a quota .* of 1\.5 cores {source}"):
        cores_of(with_(recipe, threads=2), board, range(4))


def test_facts_of_a_measurement(rock: Path) -> None:
    host = read_host(rock, architecture="aarch64", allowed=range(8))
    facts = cpu_facts(host, rock, core=5)
    assert {name: value for name, value in facts.items() if name != "flags"} == {
        "architecture": "aarch64",
        "cpu": "Arm implementer 0x41 part 0xd05 0xd0b",
        "cores": 8,
        "core": "0xd05 r2p0, 0xd0b r4p0",
        "board": "Radxa ROCK 5B",
        "kind_of_core": "Cortex-A76, capacity 1024",
        "scaling_governor": "schedutil",
        "scaling_cur_freq": "1608000",
        "scaling_max_freq": "1608000",
        "cpuinfo_max_freq": "2400000",
        "temperatures_c": "bigcore0-thermal 85.1, bigcore1-thermal 84.2, soc-thermal 83.2, littlecore-thermal 82.3",
        "throttling": "cpufreq-cpu4 at 3 of 8",
        "quota_cores": 6.0,
    }
    assert all(isinstance(value, str | int | float | list) for value in facts.values())
    assert cpu_facts(host, rock, core=0)["kind_of_core"] == "Cortex-A55, capacity 414"


def test_a_host_without_a_clock_says_so(tmp_path: Path) -> None:
    board = write_board("apple-virtual-machine", tmp_path)
    facts = cpu_facts(read_host(board, architecture="aarch64", allowed=range(4)), board)
    assert facts["scaling_governor"] == facts["scaling_max_freq"] == "not shown by this system"
    assert not {"temperatures_c", "throttling", "scaling_cur_freq"} & facts.keys()


def test_a_slowed_cpu_is_said_before_the_measurement(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = import_module("hwnas.timing.host")
    target = Target(describe(module.detect_host()), recipe)
    monkeypatch.setattr(module, "slowed_by", lambda: "")
    check_host(target)
    assert "slowed" not in caplog.text
    monkeypatch.setattr(module, "slowed_by", lambda: "cpufreq-cpu4 at 3 of 8")
    check_host(target)
    assert "this CPU is slowed now (cpufreq-cpu4 at 3 of 8), so its timings are too slow" in caplog.text
