"""Timing in a process of its own: the same figures, and what happens when it ends."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import BundleError, MachineError, ProgramCrashed, RuntimeUnavailable
from hwnas.files import Journal
from hwnas.machines import LocalMachine
from hwnas.machines.connection import Connection, runner_archive
from hwnas.machines.remote import RemoteMachine
from hwnas.machines.runner import Died, Lost, Runner
from hwnas.machines.sampler import RunnerSampler, Timing
from hwnas.targets import Recipe
from hwnas.timing import Protocol

QUICK = Protocol(visit_ms=0.05, max_runs=5, session_passes=2, max_sessions=2, tolerance=1e9, max_disagreement=1e9)


def network(folder: Path, name: str, size: int = 8) -> Path:
    """A linear layer as an ONNX file; its input is ``(1, 3, size, size)``."""
    weight = numpy_helper.from_array(np.ones((3 * size * size, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    return {name: network(tmp_path, name, size) for name, size in (("a", 4), ("b", 8), ("c", 16))}


# -- what is measured ------------------------------------------------------------------------------------


def test_a_child_times_every_program_in_every_pass(programs: dict[str, Path], recipe: Recipe, tmp_path: Path) -> None:
    with Journal(tmp_path / "j", {}) as journal:
        measured = LocalMachine().time(programs, recipe, QUICK, journal=journal)
        again = LocalMachine().time(programs, recipe, QUICK, journal=journal)
    assert list(measured.samples_ms) == ["a", "b", "c"]
    assert measured.passes == 4
    assert all(ms > 0 for passes in measured.samples_ms.values() for visit in passes for ms in visit)
    assert again == measured  # everything was in the journal
    assert measured.held.cores


def test_graphs_in_memory_are_timed_like_their_files(programs: dict[str, Path], recipe: Recipe) -> None:
    graphs = {name: onnx.load(path) for name, path in programs.items()}
    assert LocalMachine().time(graphs, recipe, QUICK).passes == 4


def test_the_child_holds_nothing_but_the_runtime() -> None:
    """The modules of a runner that has loaded ONNX Runtime."""
    code = (
        "import sys, hwnas.runner.serve, hwnas.runner.__main__, hwnas.runner.onnxruntime\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('torch', 'onnx', 'pydantic', 'scipy')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_outputs_come_back(programs: dict[str, Path], recipe: Recipe) -> None:
    x = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 1, 3, 4, 4)
    y = LocalMachine().run(programs["a"], recipe, x)
    np.testing.assert_allclose(y, np.repeat(x.reshape(2, 1, -1).sum(-1, keepdims=True), 4, -1))


def test_an_input_of_another_shape(programs: dict[str, Path], recipe: Recipe) -> None:
    with pytest.raises(BundleError, match=r"takes float32 \(1, 3, 4, 4\), not float32 \(1, 3, 8, 8\)"):
        LocalMachine().run(programs["a"], recipe, np.zeros((1, 1, 3, 8, 8), np.float32))


def test_what_is_no_program(recipe: Recipe, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"cannot load broken\.onnx"):
        LocalMachine().time({"broken": broken}, recipe, QUICK)


# -- the archive -----------------------------------------------------------------------------------------


def test_the_runner_keeps_to_python_3_9_and_its_own_modules() -> None:
    archive = zipfile.ZipFile(BytesIO(runner_archive()))
    names = archive.namelist()
    assert "hwnas/__init__.py" in names
    assert "hwnas/runner/__main__.py" in names
    allowed = {
        *sys.stdlib_module_names,
        "numpy",
        "onnxruntime",
        "openvino",
        "google",
    }  # protobuf, which onnxruntime brings
    for name in names:
        tree = ast.parse(archive.read(name), feature_version=(3, 9))
        for node in ast.walk(tree):
            imported = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for module in imported:
                assert module.split(".")[0] in allowed or module.startswith("hwnas.runner"), (name, module)


def test_the_archive_is_the_same_every_time() -> None:
    first = runner_archive()
    runner_archive.cache_clear()
    assert runner_archive() == first


# -- crashes ---------------------------------------------------------------------------------------------


class Crashing(LocalMachine):
    """A machine whose runtime aborts on some programs when it opens or runs them."""

    def __init__(
        self, tmp_path: Path, *, opening: str = "", running: str = "", with_signal: int = signal.SIGABRT
    ) -> None:
        code = f"""
import os
from hwnas.runner import serve

def load(path, settings):
    name = os.path.basename(path)
    if name == {opening!r}:
        os.kill(os.getpid(), {int(with_signal)})
    program = serve.load(path, settings)
    if name == {running!r}:
        program.time_ms = lambda call: os.kill(os.getpid(), {int(with_signal)})
    return program

in_threads = serve.in_threads
"""
        (tmp_path / "crashing.py").write_text(code)
        self.folder, self.started = tmp_path, 0

    def connect(self, recipe: Recipe) -> Runner:
        self.started += 1
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path])}
        runner = Runner.start(
            [sys.executable, "-m", "hwnas.runner", str(self.folder), "crashing"], "this machine", environment
        )
        runner.frames.skip_to(b"hwnas runner ready\n", 2**16, 60)
        return runner


@pytest.mark.parametrize("when", ["opening", "running"])
def test_a_program_that_aborts_is_named_and_the_others_are_done(
    programs: dict[str, Path], recipe: Recipe, tmp_path: Path, when: str
) -> None:
    machine = Crashing(tmp_path, **{when: "b.onnx"})
    with Journal(tmp_path / "j", {}) as journal:
        with pytest.raises(ProgramCrashed, match=rf"{when} 'b' ended its process twice: SIGABRT") as error:
            machine.time(programs, recipe, QUICK, journal=journal)
        assert error.value.program == "b"
        assert sorted(journal.entries) == sorted(f"{p} {name}" for p in range(4) for name in ("a", "c"))
        # Without the cause, only what is missing is timed.
        assert LocalMachine().time(programs, recipe, QUICK, journal=journal).passes == 4


def test_two_programs_that_abort_are_both_named(programs: dict[str, Path], recipe: Recipe, tmp_path: Path) -> None:
    machine = Crashing(tmp_path, opening="a.onnx", running="c.onnx", with_signal=signal.SIGSEGV)
    with pytest.raises(ProgramCrashed, match=r"2 programs crashed: .*SIGSEGV.*SIGSEGV"):
        machine.time(programs, recipe, QUICK)


def test_a_program_that_is_killed_every_time(programs: dict[str, Path], recipe: Recipe, tmp_path: Path) -> None:
    machine = Crashing(tmp_path, running="b.onnx", with_signal=signal.SIGKILL)
    with pytest.raises(MachineError, match=r"ended 4 times in a row.*may lack memory"):
        machine.time(programs, recipe, QUICK)
    assert machine.started == 4


def test_a_runner_that_is_killed_now_and_again(programs: dict[str, Path], recipe: Recipe, tmp_path: Path) -> None:
    """Each kill costs the visits in hand; every visit is there once in the end."""

    class Killed(LocalMachine):
        runners: ClassVar[list[Runner]] = []

        def connect(self, recipe: Recipe) -> Runner:
            self.runners.append(super().connect(recipe))
            return self.runners[-1]

    machine, seen = Killed(), list[int]()

    def kill(what: str, done: int, total: int, **_: Any) -> None:
        seen.append(done)
        if done in (2, 7, 8):
            machine.runners[-1].process.kill()

    with Journal(tmp_path / "j", {}) as journal:
        measured = machine.time(programs, recipe, QUICK, journal=journal, progress=kill)
    assert measured.passes == 4
    lines = (tmp_path / "j").read_text().splitlines()[1:]
    assert len(lines) == 12  # no visit twice
    assert len(machine.runners) > 1


# -- connections -----------------------------------------------------------------------------------------


def connection(command: str, python: str = sys.executable) -> RemoteMachine:
    return RemoteMachine("board", Connection(command=command, python=python))


def test_a_command_that_gives_a_shell(programs: dict[str, Path], recipe: Recipe, bare_python: Path) -> None:
    machine = connection("env -u PYTHONPATH sh", str(bare_python))
    assert machine.time(programs, recipe, QUICK).passes == 4
    done = subprocess.run([bare_python, "-c", "import torch"], capture_output=True, text=True, check=False)
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize(
    ("command", "python", "message"),
    [
        ("no-such-command-at-all", "python3", "cannot start 'no-such-command-at-all'"),
        ("sh", "no-such-python", "Is 'no-such-python' installed there"),
        ("false", "python3", "cannot use board"),
        ("echo hello #", "python3", "cannot use board .*hello"),
        ("sh -c 'echo old; exit 3' sh", "python3", "cannot use board"),
    ],
)
def test_connections_that_lead_nowhere(command: str, python: str, message: str) -> None:
    with pytest.raises(MachineError, match=message):
        connection(command, python).host()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("#!/bin/sh\necho 'hwnas: old 3.6.15'\n", "is Python 3.6.15; the runner needs 3.9"),
        ("#!/bin/sh\necho \"hwnas: numpy No module named 'numpy'\"\n", "has no numpy"),
        ("#!/bin/sh\necho 'hwnas: disk [Errno 28] No space left on device'\n", "cannot be written .*No space left"),
        ("#!/bin/sh\necho 'hwnas: what'\n", "answers 'what' instead"),
    ],
)
def test_pythons_that_cannot_be_used(tmp_path: Path, lines: str, message: str) -> None:
    python = tmp_path / "python"
    python.write_text(lines)
    python.chmod(0o755)
    with pytest.raises(MachineError, match=message):
        connection("sh", str(python)).host()


def test_a_banner_before_the_runner(programs: dict[str, Path], recipe: Recipe, bare_python: Path) -> None:
    machine = connection("sh -c 'echo Welcome; echo to the board; exec sh' sh", str(bare_python))
    assert machine.host().cores >= 1


def test_a_flood_instead_of_the_runner() -> None:
    with pytest.raises(MachineError, match="prints something else while connecting: 'y"):
        connection("yes y #").host()


def test_a_connection_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.machines.connection._CONNECT_S", 0.5)
    with pytest.raises(MachineError, match=r"does not answer: no output for 0 s while connecting.*by hand"):
        connection("sh -c 'sleep 30' sh").host()


def test_a_runtime_that_is_missing_there(recipe: Recipe, bare_python: Path, this: Any) -> None:
    openvino = recipe.model_copy(update={"runtime": "openvino"})
    machine = connection("env -u PYTHONPATH sh", str(bare_python))
    with pytest.raises(RuntimeUnavailable, match=r"cannot run there\. board: .*openvino.*pip install openvino"):
        machine.versions(type(this)(this.device, openvino))


def test_two_users_of_one_machine(programs: dict[str, Path], recipe: Recipe, bare_python: Path) -> None:
    first = connection("env -u PYTHONPATH sh", str(bare_python))
    with first.connect(recipe), pytest.raises(MachineError, match=r"board is in use: .* times there"):
        first.connect(recipe)
    first.connect(recipe).close()


def test_programs_are_sent_once(programs: dict[str, Path], recipe: Recipe, bare_python: Path, tmp_path: Path) -> None:
    sent: list[str] = []

    def progress(what: str, done: int, total: int, **_: Any) -> None:
        sent.append(what)

    machine = connection(f"env -u PYTHONPATH XDG_CACHE_HOME={tmp_path / 'cache'} sh", str(bare_python))
    machine.time(programs, recipe, QUICK, progress=progress)
    assert sent.count("sending programs to board") == 4
    assert len(list((tmp_path / "cache/hwnas-runner/programs").iterdir())) == 3
    sent.clear()
    machine.time(programs, recipe, QUICK, progress=progress)
    assert "sending programs to board" not in sent


def test_a_lost_connection_is_tried_again() -> None:
    tries = []

    def connect() -> tuple[Runner, Timing]:
        tries.append(1)
        raise Lost("gone") if len(tries) < 3 else MachineError("refused")

    with pytest.raises(MachineError, match="refused"):
        RunnerSampler(connect, beside=False, pauses_s=(0, 0, 0, 0)).reopen(["a"], (0, 0))
    assert len(tries) == 3
    with pytest.raises(MachineError, match="cannot be reached again: gone"):
        RunnerSampler(lambda: (_ for _ in ()).throw(Lost("gone")), beside=False, pauses_s=(0, 0)).reopen(["a"], (0, 0))


def test_ends_of_a_process_are_told_apart() -> None:
    for script, kind in (("kill -ABRT $$", Died), ("kill -KILL $$", Lost), ("exit 255", Lost), ("exit 3", Died)):
        runner = Runner.start(["sh", "-c", script], "board")
        with pytest.raises(kind):
            runner.ask("facts")
        runner.close()


def test_environment_reaches_the_child(
    monkeypatch: pytest.MonkeyPatch, programs: Mapping[str, Path], recipe: Recipe
) -> None:
    monkeypatch.setenv("HWNAS_MEMORY_GIB", "1e-3")
    from hwnas.errors import OutOfMemory

    with pytest.raises(OutOfMemory, match="HWNAS_MEMORY_GIB"):
        LocalMachine().time(programs, recipe, QUICK)


def test_a_program_whose_name_is_not_utf_8(programs: Mapping[str, Path], recipe: Recipe, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    odd = programs["a"].rename(folder / "a.onnx")
    assert LocalMachine().time({"a": odd}, recipe, QUICK).passes == 4


ORPHAN = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import time
from hwnas.runner.__main__ import end_with_parent
end_with_parent(0.05)
print("ready", flush=True)
time.sleep(60)  # as a runtime that hangs
'''], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
"""


def test_a_runner_that_hangs_ends_with_its_driver() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, check=True, timeout=100)
    state = Path(f"/proc/{done.stdout.strip()}/stat")
    for _ in range(200):
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the runner outlived its driver")
