"""Which cores are timed on, and what is refused before any work."""

from __future__ import annotations

import os
import threading
from importlib import import_module
from pathlib import Path

import pytest
import torch

from hwnas.errors import InvalidValue
from hwnas.targets import Chosen, Quota, Recipe, Topology, load_recipe
from hwnas.targets.topology import Core
from hwnas.timing import Protocol, require_cores, time_programs
from hwnas.timing import pinning as module

QUICK = Protocol(visit_ms=0.05, max_runs=5, session_passes=2, max_sessions=3, tolerance=1e9)
needs_pinning = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")


def held_during(programs: dict[str, Path], recipe: Recipe) -> tuple[set[tuple[int, ...]], dict[str, object]]:
    """The affinities that a measurement had, and what it says of itself."""
    seen: set[tuple[int, ...]] = set()

    def look(what: str, done: int, total: int) -> None:
        if done < total:
            seen.add(tuple(sorted(os.sched_getaffinity(0))))

    return seen, {**time_programs(programs, recipe, QUICK, progress=look).summary()}


@needs_pinning
def test_a_fast_core_is_timed_on_and_recorded(
    programs: dict[str, Path], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first core is the only fast one, as if all others were efficiency cores."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = [Core(number=n, physical=n, kind=int(n != allowed[0])) for n in allowed]
    monkeypatch.setattr(module, "read_topology", lambda: Topology(cores=tuple(cores), kinds=("fast", "slow")))
    seen, summary = held_during(programs, recipe)
    assert seen == {(allowed[0],)}
    assert summary["cores"] == str(allowed[0])
    assert "cores_note" not in summary


@needs_pinning
@pytest.mark.parametrize("place", [0, -1])
def test_a_recipe_chooses_its_cores(programs: dict[str, Path], recipe: Recipe, place: int) -> None:
    core = sorted(os.sched_getaffinity(0))[place]
    seen, summary = held_during(programs, recipe.model_copy(update={"cores": (core,)}))
    assert seen == {(core,)}
    assert summary["cores"] == str(core)


@needs_pinning
def test_cores_that_this_process_does_not_have(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "allowed_cores", lambda: frozenset({0, 1, 3}))
    with pytest.raises(InvalidValue, match=r"timed on the cores 7, but this process may not run on 7: .* on 0-1,3\."):
        require_cores(recipe.model_copy(update={"cores": (7,)}))


def test_shared_physical_cores_are_said(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "allowed_cores", lambda: frozenset({0, 1}))
    siblings = tuple(Core(number=n, physical=0) for n in (0, 1))
    monkeypatch.setattr(module, "read_topology", lambda: Topology(cores=siblings))
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    wide = recipe.model_copy(update={"threads": 2})
    assert require_cores(wide) == Chosen(cores=(0, 1), note="2 threads share 1 physical cores")
    assert require_cores(wide.model_copy(update={"cores": (0, 1)})).note == "2 threads share 1 physical cores"


@pytest.mark.parametrize(
    ("quota", "threads", "refused"), [(1.5, 2, True), (0.5, 1, True), (2.0, 2, False), (1.0, 1, False)]
)
def test_a_quota_below_the_threads(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, quota: float, threads: int, refused: bool
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    monkeypatch.setattr(module, "allowed_cores", lambda: frozenset(range(8)))
    monkeypatch.setattr(module, "cpu_quota", lambda: Quota(cores=quota, source="/sys/fs/cgroup/cpu.max"))
    wide = recipe.model_copy(update={"threads": threads})
    if not refused:
        require_cores(wide)
        return
    with pytest.raises(InvalidValue) as caught:
        require_cores(wide)
    assert (
        f"the recipe uses {threads} threads, but a quota limits this process to the CPU time of {quota} cores "
        "(/sys/fs/cgroup/cpu.max)"
    ) in str(caught.value)
    assert ("a recipe with fewer threads" in str(caught.value)) is (threads > 1)


def test_a_system_that_cannot_pin(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_setaffinity", raising=False)
    assert require_cores(recipe) == Chosen()
    with pytest.raises(InvalidValue, match="sets the cores 0, but this system cannot pin a process"):
        require_cores(recipe.model_copy(update={"cores": (0,)}))
    with module.pinned(Chosen()) as cores:
        assert cores == set()


@needs_pinning
def test_workers_of_a_runtime_are_held_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch keeps the threads that it started; those of Python, such as a bar of progress, stay where they are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        (torch.ones(600, 600) @ torch.ones(600, 600)).sum()
    finally:
        torch.set_num_threads(threads)
    ended = threading.Event()
    waiting = threading.Thread(target=ended.wait)
    waiting.start()
    moved: dict[int, list[tuple[int, ...]]] = {}
    monkeypatch.setattr("os.sched_setaffinity", lambda task, cores: moved.setdefault(task, []).append(tuple(cores)))
    try:
        with module.pinned(Chosen(cores=(0,))):
            pass
        assert set(moved) == {0}  # of one thread there are no workers
        moved.clear()
        before = {task: tuple(os.sched_getaffinity(task)) for task in (0, *module._workers())}
        with module.pinned(Chosen(cores=(0, 1))):
            assert set(module._workers()) < set(moved)
    finally:
        ended.set()
        waiting.join()
    assert len(moved) > 1
    assert waiting.native_id not in moved
    assert moved == {task: [(0, 1), cores] for task, cores in before.items()}


@needs_pinning
def test_a_system_that_refuses_to_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(task: int, cores: object) -> None:
        if tuple(cores) == (0,):  # type: ignore[arg-type]
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.sched_setaffinity", refuse)
    refused = pytest.raises(InvalidValue, match="cannot pin this process to the cores 0: Operation not permitted")
    with refused, module.pinned(Chosen(cores=(0,))):
        raise AssertionError("it was not held")
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    with pytest.raises(FileNotFoundError), module.pinned(Chosen(cores=(0,))):
        raise FileNotFoundError("an error of what is timed stays what it is")


def test_nothing_is_lowered_for_cores_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hwnas.profiling import profile
    from hwnas.spaces import make_space
    from hwnas.targets import Target, this_device

    monkeypatch.setattr(module, "cpu_quota", lambda: Quota(cores=0.25, source="cpu.max"))
    monkeypatch.setattr(import_module("hwnas.profiling.profiler"), "lower_ops", pytest.fail)
    target = Target(this_device(), load_recipe("onnxruntime-cpu-fp32"))
    with pytest.raises(InvalidValue, match=r"the CPU time of 0\.25 cores"):
        profile(make_space("mobilenetv3-tiny"), target, journals=tmp_path)


def test_nothing_is_lowered_for_a_limit_of_memory_that_is_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from hwnas.profiling import profile
    from hwnas.spaces import make_space
    from hwnas.targets import Target, this_device

    monkeypatch.setenv("HWNAS_MEMORY_GIB", "1e9")
    monkeypatch.setattr(import_module("hwnas.profiling.profiler"), "lower_ops", pytest.fail)
    target = Target(this_device(), load_recipe("onnxruntime-cpu-fp32"))
    with pytest.raises(InvalidValue, match="HWNAS_MEMORY_GIB is '1e9'"):
        profile(make_space("mobilenetv3-tiny"), target, journals=tmp_path)


def test_a_quota_stands_among_the_facts_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("hwnas.timing.host")
    monkeypatch.setattr(module, "cpu_quota", lambda root: Quota(cores=1.5, source="cpu.max"))
    assert module.host_facts("cpu")["quota_cores"] == 1.5
    monkeypatch.setattr(module, "cpu_quota", lambda root: None)
    assert "quota_cores" not in module.host_facts("cpu")
