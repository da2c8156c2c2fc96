"""OpenMP's variables, which leave a process one core once torch is loaded; in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hwnas import affinity

VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
ASK = """
import json, os
from hwnas.errors import HwnasError
from hwnas.targets import detect_host, load_recipe, usable_cores
from hwnas.timing import require_cores

def held(name):
    try:
        return list(require_cores(load_recipe(name)).cores)
    except HwnasError as error:
        return str(error)

print(json.dumps({
    "cores": detect_host().cores,
    "usable": usable_cores(),
    "now": sorted(os.sched_getaffinity(0)),
    "onnxruntime": held("onnxruntime-cpu-fp32-2t"),
    "torch": held("torch-cpu-fp32-2t"),
}))
"""

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to choose from"
)


def run(code: str, **variables: str) -> tuple[dict[str, object], str]:
    """What a fresh interpreter answers to `ASK` after some code, and what it warns of."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    done = subprocess.run(
        [sys.executable, "-c", code + ASK], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found, done.stderr


def test_the_command_line_chooses_the_cores_itself() -> None:
    cores = sorted(os.sched_getaffinity(0))
    code = "import sys\nfrom hwnas.cli.main import main\nsys.argv = ['hwnas', '--version']\n"
    code += "try: main()\nexcept SystemExit: pass\nimport torch"
    found, said = run(code, OMP_PROC_BIND="true", OMP_PLACES="cores")
    assert found["now"] == cores
    assert found["cores"] == found["usable"] == len(cores)
    assert len(found["torch"]) == len(found["onnxruntime"]) == 2  # type: ignore[arg-type]
    assert "OMP_PROC_BIND=true, OMP_PLACES=cores is not used" in said


def test_python_that_imports_hwnas_first_keeps_its_cores() -> None:
    cores = sorted(os.sched_getaffinity(0))
    found, said = run("import hwnas, torch", OMP_PROC_BIND="close")
    if found["now"] == cores:
        pytest.skip("this torch does not use libgomp")
    assert found["cores"] == found["usable"] == len(cores)
    assert len(found["onnxruntime"]) == 2  # type: ignore[arg-type]
    # The workers of torch would be where OpenMP puts them.
    assert str(found["torch"]).startswith("OMP_PROC_BIND=close makes OpenMP bind the 2 threads of torch-cpu-fp32-2t to")
    assert "fewer cores" not in said


def test_python_that_imports_torch_first_is_told_what_bound_it() -> None:
    core = max(os.sched_getaffinity(0))
    found, said = run("import torch", GOMP_CPU_AFFINITY=str(core))
    if found["now"] != [core]:
        pytest.skip("this torch does not use libgomp")
    why = f"GOMP_CPU_AFFINITY={core} bound this process to core {core} when torch was loaded: unset it, or import hwnas"
    assert f"may run on 1 cores only; {why}" in str(found["onnxruntime"])
    assert f"this host is described with fewer cores than it has: {why}" in said


@pytest.mark.parametrize(
    ("variables", "bound"),
    [
        ({}, False),
        ({"OMP_PROC_BIND": "true"}, True),
        ({"OMP_PROC_BIND": " FALSE ", "GOMP_CPU_AFFINITY": "1"}, False),
        ({"OMP_PROC_BIND": ""}, False),
        ({"OMP_PLACES": "cores"}, True),
        ({"GOMP_CPU_AFFINITY": "0-3"}, True),
        ({"OMP_NUM_THREADS": "1"}, False),
    ],
)
def test_which_variables_bind(variables: dict[str, str], bound: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bool(affinity.binding(variables)) is bound
    monkeypatch.setattr(affinity, "_openmp_is_loaded", lambda: False)
    left = dict(variables)
    assert bool(affinity.drop_binding(left)) is bound
    assert not affinity.binding(left)
    monkeypatch.setattr(affinity, "_openmp_is_loaded", lambda: True)  # too late: it stays, to be named
    left = dict(variables)
    assert affinity.drop_binding(left) == ""
    assert left == variables


@pytest.mark.parametrize(("cores", "text"), [([], ""), ([3], "3"), ([8, 0, 2, 1], "0-2,8"), ([0, 2], "0,2")])
def test_cores_as_linux_writes_them(cores: list[int], text: str) -> None:
    assert affinity.cores_text(cores) == text
