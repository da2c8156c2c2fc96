"""A machine behind a command: a mount namespace with another Python, which has numpy and ONNX Runtime only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwnas import workflows
from hwnas.errors import MachineError
from hwnas.machines import LocalMachine
from hwnas.machines.connection import Connection
from hwnas.machines.connections import save_connection
from hwnas.machines.remote import RemoteMachine
from hwnas.spaces import Space
from hwnas.targets import Recipe
from hwnas.timing import Protocol, Protocols

SHORT = Protocol(visit_ms=0.2, session_passes=2, max_sessions=2, max_disagreement=1e3)


def runs(python: str | None, version: str) -> bool:
    """Whether a command is a Python of that version; version managers leave commands that only print an error."""
    if python is None:
        return False
    done = subprocess.run([python, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.startswith(f"Python {version}")


def python_of(version: str) -> str | None:
    """A Python of a version on this machine: in PATH, or beside the one that runs the tests."""
    beside = sorted(Path(sys.base_prefix).parent.glob(f"{version}*/bin/python{version}"))
    found = [shutil.which(f"python{version}"), *map(str, beside)]
    return next((python for python in found if runs(python, version)), None)


@pytest.fixture(scope="module", params=["3.9", "3.13"])
def other_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment of another version, with numpy and ONNX Runtime."""
    python = python_of(request.param)
    if python is None:
        pytest.skip(f"Python {request.param} is not installed")
    folder = tmp_path_factory.mktemp("other")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([python, "-m", "venv", folder], check=True, env=environment)
    pip = [folder / "bin/python", "-m", "pip", "install", "-q", "numpy", "onnxruntime"]
    done = subprocess.run(pip, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        pytest.skip(f"numpy and onnxruntime cannot be installed for Python {request.param}: {done.stderr[-300:]}")
    return folder / "bin" / "python"


@pytest.mark.long
def test_a_namespace_with_another_python(
    other_python: Path, space: Space, recipe: Recipe, programs: dict[str, Path], tmp_path: Path
) -> None:
    command = "unshare --mount --uts sh" if os.geteuid() == 0 and shutil.which("unshare") else "env -i HOME=/tmp sh"
    connection = Connection(command=command, python=str(other_python))
    machine = RemoteMachine("box", connection)
    assert machine.snapshot.facts["python"].split(".")[:2] != list(map(str, sys.version_info[:2]))
    x = np.random.default_rng(0).standard_normal((2, *machine_shape(programs["a"]))).astype(np.float32)
    here, there = (each.run(programs["a"], recipe, x) for each in (LocalMachine(), machine))
    np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5)
    save_connection("box", connection)
    try:
        answer = workflows.profile(
            space,
            "this/onnxruntime-cpu-fp32",
            machine=machine,
            tables=tmp_path,
            networks=6,
            bound_networks=5,
            protocols=Protocols(ops=SHORT, networks=SHORT),
        )
        assert answer.ops == len(space.distinct_ops)
    finally:
        from hwnas.machines.connections import remove_connection

        remove_connection("box")


def machine_shape(program: Path) -> tuple[int, ...]:
    """Shape of the input of an ONNX file."""
    import onnx

    [entry] = onnx.load(program).graph.input
    return tuple(axis.dim_value for axis in entry.type.tensor_type.shape.dim)


def test_a_python_that_is_too_old() -> None:
    python = next((found for version in ("3.8", "3.7", "3.6", "2.7") if (found := python_of(version))), None)
    if python is None:
        pytest.skip("no Python older than 3.9 is installed")
    with pytest.raises(MachineError, match=r"is Python \d\.\d+\.\d+; the runner needs 3\.9 or later"):
        RemoteMachine("old", Connection(command="sh", python=python)).host()
