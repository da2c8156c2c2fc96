"""Studies, with trainings in closed form: an accuracy that grows by the epoch to what a known sum gives."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from forks import Forked, Forks

from hwnas.errors import InfeasibleBudget, InvalidValue, OutputError, UnknownName
from hwnas.search import Problem
from hwnas.search.exact.front import least
from hwnas.search.study.study import search_study
from hwnas.spaces import Arch, Codes, Space, make_space

MakeProblem = Callable[..., Callable[[float | None], Problem]]
BruteForce = Callable[[Space], Codes]

TINY = make_space("mobilenetv3-tiny")


@dataclass
class Training:
    """Counts what it trains; ``kill`` ends the process, as far as a test can, in the first epoch of that training."""

    problem: Problem
    epochs: int = 1
    kill: int | None = None
    archs: list[Arch] = field(default_factory=list)
    trained_epochs: int = 0

    def __call__(self, arch: Arch) -> Iterator[float]:
        self.archs.append(arch)
        [accuracy] = self.problem.accuracy(self.problem.space.encode([arch]))
        for epoch in range(1, self.epochs + 1):
            if len(self.archs) == self.kill:
                raise KeyboardInterrupt
            self.trained_epochs += 1
            yield float(accuracy) - 1 / epoch + 1 / self.epochs


def half(make: Callable[[float | None], Problem], space: Space) -> Problem:
    """The problem with a budget that half of the networks keep."""
    return make(float(np.median(make(None).costs(space.sample(500, seed=9)))))


@pytest.fixture
def problem(make_problem: MakeProblem) -> Problem:
    return half(make_problem(TINY, 0), TINY)


@pytest.fixture(params=["study.journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db" if request.param == "sqlite" else str(tmp_path / request.param)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_best_of_a_small_space_is_found_and_nothing_is_trained_twice(
    sampler: str, make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    space = small_spaces["no shallow depth"]
    problem = half(make_problem(space, 3), space)
    within = brute_force(space)
    within = within[problem.excess(within) == 0]
    train = Training(problem)
    found = search_study(problem, train, trials=len(within), sampler=sampler, epochs=1, name="small", candidates=3)
    assert found.evaluations == len(train.archs) == len(set(train.archs)) == len(within)
    values = np.sort(problem.accuracy(within))[::-1]
    assert [c.predicted_accuracy for c in found.candidates] == pytest.approx(values[:3].tolist())
    assert found.strategy == f"optuna-{sampler}"
    assert not found.proved
    assert not found.stopped


def test_a_space_without_further_networks_ends_the_study(
    make_problem: MakeProblem, small_spaces: dict[str, Space], caplog: pytest.LogCaptureFixture
) -> None:
    space = small_spaces["one network"]
    problem = make_problem(space, 0)(None)
    found = search_study(problem, Training(problem), trials=5, epochs=1, name="one")
    assert found.evaluations == len(found.candidates) == 1
    assert "ends with 1 networks" in caplog.text


def test_gp_draws_from_what_it_has_learnt(
    make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    space = small_spaces["resolutions"]
    codes, better = brute_force(space), []
    for seed in range(4):
        problem = half(make_problem(space, seed), space)
        train = Training(problem, epochs=3)
        found = search_study(problem, train, trials=13, sampler="gp", epochs=3, name="gp")
        assert found.evaluations == len(set(train.archs)) == 13
        assert train.trained_epochs == 3 * 13  # it does not learn from trainings cut short
        assert (problem.excess(space.encode(train.archs)) == 0).all()
        values = problem.accuracy(codes[problem.excess(codes) == 0])
        # Ten networks are random; the three after them are drawn.
        better += [float((values > drawn).mean()) for drawn in problem.accuracy(space.encode(train.archs[10:]))]
    assert np.mean(better) < 0.3, "of the networks within the budget; half of them, were the draws random"


@pytest.mark.long
def test_tpe_is_better_than_random(make_problem: MakeProblem) -> None:
    problems = [half(make_problem(TINY, seed), TINY) for seed in range(3)]
    best = {
        sampler: sum(
            search_study(problem, Training(problem), trials=50, sampler=sampler, epochs=1, name="x")
            .candidates[0]
            .predicted_accuracy
            for problem in problems
        )
        for sampler in ("tpe", "random")
    }
    assert best["tpe"] > best["random"]


def test_budgets_are_kept_and_what_breaks_them_is_never_trained(make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 1)
    # So few keep this one that no random network does.
    problem = make(0.9 * float(make(None).costs(TINY.sample(2000, seed=9)).min()))
    train = Training(problem)
    found = search_study(problem, train, trials=12, epochs=1, name="tight", candidates=5)
    assert (problem.excess(TINY.encode(train.archs)) == 0).all()
    assert found.evaluations == len(train.archs) == 12
    assert len(found.candidates) == 5
    for candidate in found.candidates:
        row = TINY.encode([candidate.arch])
        assert candidate.predicted_accuracy == pytest.approx(float(problem.accuracy(row)[0]))
        assert candidate.costs == {"board/made-up": float(problem.costs(row)[0, 0])}


def test_the_seed_decides(problem: Problem) -> None:
    runs = []
    for seed in (0, 0, 1):
        train = Training(problem, epochs=3)
        runs.append((search_study(problem, train, trials=25, epochs=3, name="x", seed=seed), train.archs))
    assert runs[0] == runs[1] != runs[2]


def test_hyperband_cuts_trainings_short(problem: Problem) -> None:
    train = Training(problem, epochs=9)
    found = search_study(problem, train, trials=30, epochs=9, name="hyperband", candidates=30)
    assert found.evaluations == len(train.archs) == 30
    assert 1 <= len(found.candidates) < 30
    assert train.trained_epochs < 0.7 * 9 * 30


def test_a_killed_study_goes_on(make_problem: MakeProblem, small_spaces: dict[str, Space], storage: str) -> None:
    space = small_spaces["resolutions"]
    problem = half(make_problem(space, 0), space)
    killed = Training(problem, kill=8)
    with pytest.raises(KeyboardInterrupt):
        search_study(problem, killed, trials=13, epochs=1, storage=storage, name="x")
    seen: list[tuple[str, int, int]] = []
    rest = Training(problem)
    found = search_study(
        problem, rest, trials=13, epochs=1, storage=storage, name="x", progress=lambda *step: seen.append(step)
    )
    assert found.evaluations == len(found.candidates) == 13
    assert len(rest.archs) == 13 - 7
    assert not set(rest.archs) & set(killed.archs[:7])
    assert seen[-1] == ("training networks", 13, 13)
    again = Training(problem)
    assert search_study(problem, again, trials=13, epochs=1, storage=storage, name="x") == found
    assert not again.archs

    import optuna

    backend = optuna.storages.journal.JournalFileBackend(storage) if "://" not in storage else None
    study = optuna.load_study(study_name="x", storage=optuna.storages.JournalStorage(backend) if backend else storage)
    assert not study.get_trials(states=[optuna.trial.TrialState.RUNNING])  # the killed one is told as failed


def test_workers_share_a_study(problem: Problem, tmp_path: Path) -> None:
    class Together(Training):
        """Its first training waits for that of the other worker, which else may find nothing left to do."""

        def __call__(self, arch: Arch) -> Iterator[float]:
            if not self.archs:
                both.wait(60)
            return super().__call__(arch)

    both = threading.Barrier(2)
    workers = [Together(problem), Together(problem)]
    found = []

    def work(train: Training) -> None:
        storage = str(tmp_path / "shared.log")
        found.append(search_study(problem, train, trials=16, epochs=1, storage=storage, name="shared"))

    threads = [threading.Thread(target=work, args=(train,)) for train in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(train.archs for train in workers)
    assert 16 <= sum(len(train.archs) for train in workers) <= 17
    assert not set(workers[0].archs) & set(workers[1].archs)
    assert max(run.evaluations for run in found) >= 16


WORKER = """
import os, sys, time
from types import SimpleNamespace
from hwnas.search.study.storage import open_study, worker_number
from hwnas.spaces import make_space

wanted = SimpleNamespace(space=make_space("mobilenetv3-tiny"), objectives=(), confidence=None, budgets={})
study = open_study(wanted, "out/study.journal", "study", {}, 0)
if sys.argv[1:] == ["hang"]:  # in the midst of a write, with the lock held
    os.fsync = lambda _: (print("writing", flush=True), time.sleep(600))
print(worker_number(study))
"""


def ended(worker: Forked) -> str:
    """What a worker printed; one that waits without end is killed."""
    with worker:
        worker.wait(60)
    return worker.stdout.read_text().strip()


def hanging(forks: Forks, folder: Path) -> Forked:
    """A worker that hangs while it writes."""
    worker = forks.start(["hang"], cwd=folder, program=WORKER)
    while worker.stdout.read_text() != "writing\n":
        assert worker.poll() is None
        time.sleep(0.01)
    return worker


def test_a_worker_that_was_killed_while_it_wrote_does_not_stop_the_next(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "out").mkdir()
    journal = tmp_path / "out" / "study.journal"
    assert ended(forks.start([], cwd=tmp_path, program=WORKER)) == "0"
    with hanging(forks, tmp_path) as killed:
        killed.send_signal(signal.SIGKILL)
    os.truncate(journal, journal.stat().st_size - 9)  # a line cut off in its midst
    assert ended(forks.start([], cwd=tmp_path, program=WORKER)) == "1"
    assert ended(forks.start([], cwd=tmp_path, program=WORKER)) == "2"


def test_a_lock_that_an_older_hwnas_left_has_no_effect(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "out").mkdir()
    assert ended(forks.start([], cwd=tmp_path, program=WORKER)) == "0"
    (tmp_path / "out" / "study.journal.lock").symlink_to("out/study.journal")
    assert ended(forks.start([], cwd=tmp_path, program=WORKER)) == "1"


def test_a_worker_that_is_held_up_while_it_writes_is_waited_for_with_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks
) -> None:
    from hwnas.search.study import lock as study_lock

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(study_lock, "_PATIENCE_S", 0.2)
    with hanging(forks, tmp_path):
        backend = study_lock.journal_backend(tmp_path / "out" / "study.journal")
        with pytest.raises(
            OutputError,
            match=r"another hwnas process is working on the study in .* did not finish within 0.2 s; wait for it",
        ):
            backend.append_logs([{}])


def test_a_study_of_something_else_is_refused(problem: Problem, storage: str) -> None:
    def search(asked: Problem, epochs: int = 1) -> None:
        search_study(asked, Training(asked, epochs), trials=1, epochs=epochs, storage=storage, name="x")

    search(problem)
    with pytest.raises(InvalidValue, match="epochs is 1 there, 2 here"):
        search(problem, epochs=2)
    [budget] = problem.budgets.values()
    with pytest.raises(InvalidValue, match=f"budget of board/made-up is {budget} there, {2 * budget} here"):
        search(replace(problem, budgets={"board/made-up": 2 * budget}))
    with pytest.raises(InvalidValue, match=r"use another name: choices of depth_1 is \[1, 2, 3\] there, \[2\] here$"):
        search(replace(problem, space=TINY.fix(depth_1=2)))


def test_stopping_gives_the_best_so_far(problem: Problem) -> None:
    train = Training(problem, epochs=3)
    found = search_study(problem, train, trials=9, epochs=3, name="x", stop=lambda: train.trained_epochs >= 4)
    assert found.stopped
    assert found.evaluations == len(found.candidates) == 1
    assert train.trained_epochs == 4  # it is asked between the epochs of a training, too
    none = search_study(problem, train, trials=9, epochs=3, name="y", stop=lambda: True)
    assert none.stopped
    assert none.candidates == []


def test_what_cannot_be_done_is_said(problem: Problem, tmp_path: Path) -> None:
    def search(asked: Problem = problem, **other: object) -> None:
        search_study(asked, Training(asked), **{"trials": 2, "epochs": 1, "name": "x", **other})  # type: ignore[arg-type]

    with pytest.raises(UnknownName, match=r"unknown sampler 'tpee'\. Did you mean 'tpe'"):
        search(sampler="tpee")
    with pytest.raises(InvalidValue, match="at least 1 of trials, not 0"):
        search(trials=0)
    with pytest.raises(InvalidValue, match="but yielded 1"):
        search(epochs=2, sampler="gp")
    with pytest.raises(InfeasibleBudget, match="needs a budget of"):
        search(replace(problem, budgets={"board/made-up": 1e-6}))
    with pytest.raises(InvalidValue, match=r"\.log or \.journal file or a database URL .* not study.txt"):
        search(storage="study.txt")
    with pytest.raises(OutputError, match="No such file or directory"):
        search(storage=str(tmp_path / "missing" / "study.log"))
    for text in ("not a journal", '{"of": "something else"}'):
        (tmp_path / "other.log").write_text(text + "\n")
        with pytest.raises(OutputError, match=r"cannot open the storage .*other\.log of study x"):
            search(storage=str(tmp_path / "other.log"))
    with pytest.raises(OutputError, match="unable to open database"):
        search(storage=f"sqlite:///{tmp_path}/missing/study.db")
    for secret in ("secret", "sec/ret", "sec@ret"):
        with pytest.raises(OutputError, match=r"cannot open the storage nosuch://host/db of study x") as caught:
            search(storage=f"nosuch://me:{secret}@host/db")
        assert secret not in str(caught.value)


def test_an_accuracy_that_is_no_number_is_refused(problem: Problem) -> None:
    with pytest.raises(InvalidValue, match="after epoch 1 it is nan"):
        search_study(problem, lambda _: iter([float("nan")]), trials=1, epochs=1, name="x")


def test_a_budget_that_hardly_any_network_keeps(make_problem: MakeProblem) -> None:
    """Random networks do not come so low by chance: some begin at the cheapest."""
    space = make_space("mobilenetv3")
    make = make_problem(space, 5)
    [objective] = make(None).objectives
    _, lowest = least(space, objective.total)
    tight = replace(make(lowest * 1.002), confidence=None)
    found = search_study(tight, lambda _: iter([0.5]), trials=2, epochs=1, name="x", sampler="random")
    assert all(c.costs[objective.name] <= lowest * 1.002 for c in found.candidates)
    assert found.candidates
