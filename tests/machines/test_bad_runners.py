"""Runners that end, hang or answer nonsense: one message, never a traceback."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import HwnasError, MachineError, TableMismatch
from hwnas.machines import connection, runner
from hwnas.machines.connection import Connection
from hwnas.machines.remote import RemoteMachine
from hwnas.progress import silent
from hwnas.targets import load_recipe
from hwnas.timing.protocol import Protocol

RECIPE = load_recipe("onnxruntime-cpu-fp32")
QUICK = Protocol(visit_ms=0.1, min_runs=1, max_runs=2, warmup_runs=0, session_passes=1, max_sessions=2)

FAKE = """
#!{python}
import os, signal, sys, time
sys.path.insert(0, {root!r})
out = os.dup(1)
os.dup2(2, 1)
os.write(out, b"hwnas: ready\\nhwnas runner ready\\n")
from pathlib import Path
from hwnas.runner.frames import Frames
mode, counter = {mode!r}, Path({counter!r})
frames = Frames(0, out)
names = []
while (received := frames.receive()) is not None:
    request, data = received
    do, answer = request.get("do"), {{"done": True}}
    if do == mode.partition(" ")[0]:
        exec(mode.partition(" ")[2])
    elif do == "facts":
        answer |= {{"python": "3.11", "system": "Linux 6", "architecture": "x86_64", "cores": [0]}}
    elif do == "snapshot":
        answer["files"] = []
    elif do == "runtime":
        answer |= {{"version": "1.0", "missing": []}}
    elif do == "have":
        answer["paths"] = {{name: "/x" for name in request["programs"]}}
    elif do == "begin":
        names = list(request["programs"])
    elif do == "open":
        answer["names"] = request["names"]
    elif do == "visits":
        frames.send({{"visits": [[key, [1.0]] for key, _ in request["plan"]]}})
    frames.send(answer)
"""


def machine(tmp_path: Path, mode: str) -> RemoteMachine:
    """A machine whose runner does something else, python code, on one request."""
    file = tmp_path / "python"
    root = str(Path(connection.__file__).parents[2])
    text = FAKE.format(python=sys.executable, root=root, mode=mode, counter=str(tmp_path / "count"))
    file.write_text(textwrap.dedent(text).lstrip())
    file.chmod(0o700)
    return RemoteMachine("board", Connection(command="sh", python=str(file)))


def timed(board: RemoteMachine, tmp_path: Path, size: int = 10) -> dict[str, list[list[float]]]:
    program = tmp_path / "a.onnx"
    program.write_bytes(b"x" * size)
    found = board.time({"a": program, "b": program}, RECIPE, QUICK)
    return dict(found.samples_ms)


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_honest_fake_is_timed(tmp_path: Path) -> None:
    assert timed(machine(tmp_path, "-"), tmp_path)["a"] == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("facts os.kill(os.getpid(), signal.SIGILL)", "ended by itself: SIGILL"),
        ("facts answer['python'] = '3'", "cannot be understood .KeyError"),
        ("facts answer |= dict(python='', system='Linux', architecture='', cores=[])", "cannot be understood"),
        ("facts answer |= dict(python='', system='Linux', architecture='', cores=['x'])", "cannot be understood"),
        ("snapshot pass", "cannot be understood"),
        ("snapshot answer['files'] = 'ab'", "cannot be understood"),
        ("runtime os._exit(3)", "ended by itself: exit code 3"),
        ("runtime pass", "cannot be understood"),
        ("have pass", "cannot be understood"),
        ("open pass", "cannot be understood"),
        ("open answer['names'] = []", "opened 0 programs"),
        ("open answer['names'] = ['other']", "opened 1 programs, not those"),
        ("visits pass", "4 times in a row: it answered without a visit"),
        ("visits answer['visits'] = [['0 z', [1.0]]]", "'0 z', a visit that is not due"),
        ("visits answer['visits'] = [[k, ['x']] for k, _ in request['plan']]", "cannot be understood"),
        ("visits answer['visits'] = [[k, [-1.0]] for k, _ in request['plan']]", "they should be positive numbers"),
        ("visits answer['visits'] = [[k, [float('nan')]] for k, _ in request['plan']]", "should be positive numbers"),
        ("visits answer['visits'] = [[k, [1e300]] for k, _ in request['plan']]", "should be positive numbers"),
        ("visits answer['visits'] = [[k, []] for k, _ in request['plan']]", "should be positive numbers"),
        ("open answer = dict(error='Odd\\x1b[31m', message='\\x1b[31m' + 10_000 * 'x')", "failed: Odd"),
    ],
)
def test_what_is_said_of_a_runner(tmp_path: Path, mode: str, said: str) -> None:
    with pytest.raises(MachineError, match=said) as caught:
        timed(machine(tmp_path, mode), tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2_000


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        ("run answer['shape'] = [1, 2]", "run"),
        ("run pass", "run"),
        ("feeds answer['arrays'] = [['y', 'float32', [9]]]", "run_feeds"),
        ("feeds pass", "run_feeds"),
        ("layers pass", "layers"),
        ("layers answer['layers'] = [dict(name='a', kind='b', ms=-1.0, inputs=[], outputs=[])]", "layers"),
        ("layers answer['layers'] = []", "layers"),
        ("layers answer |= dict(layers=[], whole_ms=float('nan'))", "layers"),
    ],
)
def test_wrong_outputs_are_refused(tmp_path: Path, mode: str, call: str) -> None:
    board = machine(tmp_path, mode)
    program = tmp_path / "a.onnx"
    program.write_bytes(b"x")
    x = np.zeros((1, 1), np.float32)
    with pytest.raises(HwnasError, match="cannot be understood"):
        if call == "run":
            board.run(program, RECIPE, x)
        elif call == "run_feeds":
            board.run_feeds(program, RECIPE, [{"x": x}])
        else:
            board.layers({"a": program}, RECIPE, runs=1)


def test_a_machine_that_changes_is_refused(tmp_path: Path) -> None:
    """As after a reboot or a new address: figures of two machines are not mixed."""
    change = (
        "runtime n = len(counter.read_text()) if counter.exists() else 0; counter.write_text('x' * (n + 1)); "
        "answer |= dict(version='1.0' if n < 1 else '2.0', missing=[])"
    )
    with pytest.raises(TableMismatch, match=r"board changed during the work: .* runtime 1\.0, and is .* runtime 2\.0"):
        timed(machine(tmp_path, change), tmp_path)


def test_a_machine_that_does_not_read_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.machines.remote._SEND_S", 1.0)
    monkeypatch.setattr(runner, "_GRACE_S", 1.0)
    program = tmp_path / "a.onnx"
    program.write_bytes(bytes(2**20))
    board = machine(tmp_path, "have answer['paths'] = {}; frames.send(answer); time.sleep(60)")
    with (
        board.connect(RECIPE) as connected,
        pytest.raises(runner.Lost, match="does not read what is sent to it for 1 s"),
    ):
        board.delivered(connected, {"a": program}, silent)


def test_what_a_command_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONNECT_S", 1.0)
    monkeypatch.setattr(runner, "_GRACE_S", 1.0)
    pid = tmp_path / "pid"
    file = tmp_path / "python"
    lines = ("import os, time", f"open({str(pid)!r}, 'w').write(str(os.getpid()))", "time.sleep(99)")
    file.write_text("\n".join((f"#!{sys.executable}", *lines, "")))
    file.chmod(0o700)
    with pytest.raises(MachineError, match="does not answer: no output for 1 s"):
        Connection(command="sh", python=str(file)).start("board")
    for _ in range(100):  # the system buries it soon
        if not alive(int(pid.read_text())):
            return
        time.sleep(0.05)
    pytest.fail("it still runs")


@pytest.mark.parametrize("command", [" ", '"', "'a"])
def test_a_command_that_is_none(command: str) -> None:
    with pytest.raises(ValueError, match=r"it is empty|a shell could not read it"):
        Connection(command=command)


def test_a_damaged_runner_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = Connection(command="sh", python=sys.executable)
    here.start("board").close()
    [file] = (tmp_path / "hwnas-runner").glob("runner-*.zip")
    whole = file.read_bytes()
    file.write_bytes(whole[:5000] + bytes(100) + whole[5100:])
    here.start("board").close()
    assert file.read_bytes() == whole
    assert not list(file.parent.glob("*.part"))
