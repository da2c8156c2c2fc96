"""Studies with several trainings at the same time, with trainings in closed form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.engines import SERIAL, Engine
from hwnas.errors import InvalidValue, SearchStopped
from hwnas.search import Problem
from hwnas.search.study.study import search_study
from hwnas.search.study.together import search_together
from hwnas.spaces import Arch, make_space

TINY = make_space("mobilenetv3-tiny")


class Threads(Engine):
    """Three workers that run nothing: the trainings here need none."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    @property
    def workers(self) -> int:
        return 3

    def map(self, *_: Any, **__: Any) -> Iterator[tuple[int, Any]]:
        raise AssertionError

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def problem(make_problem: Callable[..., Callable[[float | None], Problem]]) -> Problem:
    make = make_problem(TINY, 0)
    return make(float(np.median(make(None).costs(TINY.sample(500, seed=9)))))


@pytest.fixture
def how(tmp_path: Path) -> dict[str, Any]:
    return {"trials": 9, "epochs": 1, "name": "x", "storage": str(tmp_path / "study.journal")}


def test_several_networks_are_trained_at_the_same_time(problem: Problem, how: dict[str, Any]) -> None:
    archs, together, said = list[Arch](), threading.Barrier(3, timeout=60), list[tuple[str, int, int]]()

    def train(arch: Arch) -> Iterator[float]:
        if len(archs) < 3:
            archs.append(arch)
            together.wait()  # for the first networks of all three threads
        else:
            archs.append(arch)
        yield float(problem.accuracy(TINY.encode([arch]))[0])

    found = search_together(
        partial(search_study, problem, train, **how), Threads(), progress=lambda *step, **_: said.append(step)
    )
    assert 9 <= found.evaluations == len(archs) <= 11
    assert not found.stopped
    assert found.candidates[0].predicted_accuracy == max(problem.accuracy(TINY.encode(archs)))
    counts = [done for _, done, _ in said]
    assert counts == sorted(counts)
    assert said[-1] == ("training networks", 9, 9)


def test_the_engine_serial_is_the_study_as_before(problem: Problem, how: dict[str, Any]) -> None:
    threads = set[threading.Thread]()

    def train(arch: Arch) -> Iterator[float]:
        threads.add(threading.current_thread())
        yield 0.5

    assert search_together(partial(search_study, problem, train, **how), SERIAL).evaluations == 9
    assert threads == {threading.main_thread()}


def test_an_error_ends_the_other_trainings(problem: Problem, how: dict[str, Any]) -> None:
    engine, first, second = Threads(), threading.Lock(), threading.Event()

    def train(arch: Arch) -> Iterator[float]:
        if first.acquire(blocking=False):
            assert second.wait(60)
            raise InvalidValue("a bad network")
        second.set()
        assert engine.closed.wait(60)
        raise SearchStopped("its worker was ended")
        yield 0.5

    with pytest.raises(InvalidValue, match="a bad network"):
        search_together(partial(search_study, problem, train, **how), engine)
    assert engine.closed.is_set()


def test_a_stop_ends_the_workers_and_gives_the_best_so_far(problem: Problem, how: dict[str, Any]) -> None:
    engine, trained = Threads(), list[Arch]()

    def train(arch: Arch) -> Iterator[float]:
        if len(trained) >= 4:
            assert engine.closed.wait(60)
            raise SearchStopped("its worker was ended")
        trained.append(arch)
        yield 0.5

    found = search_together(partial(search_study, problem, train, **how), engine, stop=lambda: len(trained) >= 4)
    assert found.stopped
    assert found.evaluations == len(found.candidates) >= 1
