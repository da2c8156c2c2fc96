"""The engines serial and pool: the same results, lost workers, errors, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from engine_work import Picky, Work, all_end, noted

from hwnas.engines import SERIAL, Engine, EngineConfig, engine_names, open_engine
from hwnas.engines.workers import Workers
from hwnas.errors import EngineError, HwnasError, InfeasibleBudget, InvalidValue, ProgramCrashed, UnknownName

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


@pytest.fixture
def pool() -> Iterator[Engine]:
    with open_engine(EngineConfig(name="pool", workers=2)) as engine:
        yield engine


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_results_are_those_of_this_process(pool: Engine, log: Path) -> None:
    items = list(range(12))
    expected = dict(SERIAL.map(partial(Work, log), Work.slow_square, items))
    assert list(expected) == items  # in their order
    assert noted(log)[0] == (os.getpid(), "opened")
    log.unlink()
    assert dict(pool.map(partial(Work, log), Work.slow_square, items)) == expected
    by = {text: pid for pid, text in noted(log)}
    assert len({by[str(item)] for item in items}) == 2
    assert os.getpid() not in by.values()


def test_a_worker_keeps_what_it_opened(pool: Engine, log: Path) -> None:
    source = partial(Work, log)
    for _ in range(2):
        assert dict(pool.map(source, Work.slow_square, [1, 2, 3, 4])) == {0: 1, 1: 4, 2: 9, 3: 16}
    opened = [pid for pid, text in noted(log) if text == "opened"]
    assert len(opened) == len({pid for pid, _ in noted(log)}) <= 2


def test_no_items_need_no_worker(pool: Engine, log: Path) -> None:
    assert list(pool.map(partial(Work, log), Work.square, [])) == []
    assert list(SERIAL.map(partial(Work, log), Work.square, [])) == []
    assert not log.exists()


def test_a_killed_worker_costs_the_item_in_hand(pool: Engine, log: Path) -> None:
    log.with_name("kills").write_text("2")
    found = dict(pool.map(partial(Work, log), Work.killed_at_3, list(range(8))))
    assert found == {number: number**2 for number in range(8)}
    begun = [text for _, text in noted(log)]
    assert {number: begun.count(str(number)) for number in range(8)} == {n: 3 if n == 3 else 1 for n in range(8)}


def test_an_item_that_ends_three_workers_is_named(pool: Engine, log: Path) -> None:
    log.with_name("kills").write_text("3")
    with pytest.raises(EngineError, match=r"^number 3 ended its worker 3 times; the last time, its process was killed"):
        list(pool.map(partial(Work, log), Work.killed_at_3, [3], name=lambda item: f"number {item}"))
    # The engine is as good as before.
    assert dict(pool.map(partial(Work, log), Work.killed_at_3, [3, 4])) == {0: 9, 1: 16}


def test_errors_reach_the_caller(pool: Engine, log: Path) -> None:
    def raised(what: str, kind: type[Exception]) -> Exception:
        with pytest.raises(kind) as caught:
            list(pool.map(partial(Work, log), Work.wrong, [what]))
        return caught.value

    user = raised("user", UnknownName)
    assert str(user).startswith("unknown colour 'gren'. Did you mean 'green'?")
    assert isinstance(user, UnknownName)
    assert user.choices == ["green", "red"]
    infeasible = raised("infeasible", InfeasibleBudget)
    assert isinstance(infeasible, InfeasibleBudget)
    assert (infeasible.objectives, infeasible.lowest) == (("ms",), 1.5)
    crashed = raised("crashed", ProgramCrashed)
    assert isinstance(crashed, ProgramCrashed)
    assert (str(crashed), crashed.program, crashed.exit_code) == ("it ended its process", "model.onnx", 2)
    [note] = raised("bug", ZeroDivisionError).__notes__
    assert note.startswith("in a worker on ")
    assert "engine_work.py" in note
    assert Picky.__name__ in str(raised("picky", RuntimeError))


def test_what_cannot_be_sent_is_refused(pool: Engine) -> None:
    with pytest.raises(InvalidValue, match=r"cannot be sent to other processes: .*lambda"):
        list(pool.map(lambda: None, Work.square, [1]))


@LINUX
def test_workers_end_with_the_engine(pool: Engine, log: Path) -> None:
    """Also those in the midst of work; whoever waits for them gets an error."""
    source, caught = partial(Work, log), list[Exception]()

    def wait() -> None:
        try:
            list(pool.map(source, Work.forever, [1, 2]))
        except HwnasError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not {"1", "2"} <= {text for _, text in noted(log)}:
        time.sleep(0.02)
    pool.close()
    thread.join()
    assert [str(error) for error in caught] == ["the work was ended"]
    assert all_end({pid for pid, _ in noted(log)})
    assert dict(pool.map(source, Work.square, [3])) == {0: 9}  # by new workers


DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores Ctrl-C
from functools import partial
from pathlib import Path
from engine_work import Work
from hwnas.engines import EngineConfig, open_engine

with open_engine(EngineConfig(name="pool", workers=2)) as engine:
    list(engine.map(partial(Work, Path(sys.argv[1])), Work.forever, [1, 2]))
"""


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(log: Path, number: signal.Signals) -> None:
    """By `kill -9` of it alone, and by Ctrl-C, which all processes of the terminal get."""
    path = os.pathsep.join(sys.path)
    words = [sys.executable, "-c", DRIVER, str(log)]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=environment, start_new_session=True) as driver:
        try:
            while not {"1", "2"} <= {text for _, text in noted(log)}:
                assert driver.poll() is None
                time.sleep(0.02)
            (os.kill if number == signal.SIGKILL else os.killpg)(driver.pid, number)
            driver.communicate(timeout=60)
        finally:
            driver.kill()
    assert driver.returncode == -number
    pids = {pid for pid, _ in noted(log)}
    assert len(pids) == 2
    assert all_end(pids)


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        open_engine(EngineConfig(name="pool", workers=2)) as engine,
        pytest.raises(EngineError, match="a worker cannot start: its process ended with exit code 1"),
    ):
        list(engine.map(partial(Work, log), Work.square, [1, 2, 3]))


def test_engines_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_names()[:3] == ["serial", "pool", "ray"]
    assert open_engine() is open_engine(EngineConfig(workers=1)) is SERIAL
    pool = open_engine(EngineConfig(name="pool"))
    assert isinstance(pool, Workers)
    assert pool.workers >= 2
    with pytest.raises(UnknownName, match=r"unknown engine 'poll'\. Did you mean 'pool'"):
        open_engine(EngineConfig(name="poll"))
    with pytest.raises(InvalidValue, match="the engine serial has 1 worker, not 2; use the engine pool"):
        open_engine(EngineConfig(workers=2))
    for name in ("serial", "pool"):
        with pytest.raises(InvalidValue, match=rf"the engine {name} takes no address \(host:1\); use the engine ray"):
            open_engine(EngineConfig(name=name, address="host:1"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"needs the package ray, which is not installed: pip install 'hwnas\[ray\]'"):
        open_engine(EngineConfig(name="ray"))
