"""A runtime is added by one record, one session file and one script; nothing else knows of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas.deploy import Bundle, verify
from hwnas.deploy.manifest import README
from hwnas.errors import RuntimeUnavailable
from hwnas.machines import LocalMachine
from hwnas.runtimes import session_class
from hwnas.targets import RUNTIMES, Recipe, load_recipe
from hwnas.targets.runtimes import RuntimeFacts, is_only_here
from hwnas.timing import Protocol

SESSION = """
from pathlib import Path

import onnx
from onnx.reference import ReferenceEvaluator

from hwnas.runtimes.base import Session


class ReferenceSession(Session):
    @staticmethod
    def version():
        return str(onnx.__version__)

    def _load(self, program):
        model = onnx.load(program) if isinstance(program, Path) else program
        self._evaluator = ReferenceEvaluator(model)
        [self._input] = model.graph.input
        return tuple(d.dim_value for d in self._input.type.tensor_type.shape.dim)

    def _run(self, x):
        [y] = self._evaluator.run(None, {self._input.name: x})
        return y

    def _bind(self, x):
        return lambda: self._run(x)

    def _close(self):
        del self._evaluator
"""
SCRIPT = """\
import numpy as np
from onnx.reference import ReferenceEvaluator

PROGRAM, INPUT, BATCH = "model.onnx", "input", 1
x = np.load("example-input.npy").repeat(BATCH, axis=0)
[y] = ReferenceEvaluator(PROGRAM).run(None, {INPUT: x})
print("largest difference", abs(y[:1] - np.load("example-output.npy")).max())
"""
RECORD = RuntimeFacts(
    kind="cpu",
    form="onnx",
    precisions=("fp32",),
    session="newruntime.session:ReferenceSession",
    packages=("onnx",),
    install="onnx",
    script="newruntime:run.py",
)
QUICK = Protocol(visit_ms=0.05, max_runs=5, session_passes=1, max_sessions=2, tolerance=1e9)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    package = tmp_path / "site" / "newruntime"
    package.mkdir(parents=True)
    for name, text in {"__init__.py": "", "session.py": SESSION, "run.py": SCRIPT}.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setitem(RUNTIMES, "reference", RECORD)
    for name in [name for name in sys.modules if name.split(".")[0] == "newruntime"]:
        monkeypatch.delitem(sys.modules, name)
    shipped = load_recipe("onnxruntime-cpu-fp32").model_dump(by_alias=True)
    return Recipe.model_validate(shipped | {"name": "reference-fp32", "runtime": "reference", "options": {}})


def test_its_bundle_is_verified_and_timed(bundle: Bundle, recipe: Recipe) -> None:
    assert bundle.manifest.recipe.runtime == "reference"
    assert verify(bundle.folder).max_abs_error == 0
    measured = LocalMachine().time({"bundle": bundle.compiled}, recipe, QUICK)
    assert measured.quantile_ms("bundle", 0.5) > 0


def test_another_process_does_not_have_it(bundle: Bundle, recipe: Recipe) -> None:
    """It is run and timed in this process; a runtime of hwnas in one that holds nothing else."""
    x, recorded = bundle.example()
    assert (LocalMachine().run(bundle.compiled, recipe, x[None])[0] == recorded).all()
    assert is_only_here("reference")
    assert not any(map(is_only_here, RUNTIMES.keys() - {"reference"}))


def test_the_readme_of_its_bundle_runs(bundle: Bundle) -> None:
    page = (bundle.folder / README).read_text()
    assert "`pip install onnx numpy`" in page
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=bundle.folder, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.removeprefix("largest difference")) == 0


def test_a_library_that_is_missing_is_named_with_what_installs_it(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx.reference", None)  # as if it were not there
    with pytest.raises(RuntimeUnavailable, match=r"reference-fp32 cannot run here: onnx.reference is not installed"):
        session_class(recipe)


def test_a_session_and_a_script_belong_together() -> None:
    with pytest.raises(ValueError, match="must be empty without one"):
        RuntimeFacts(kind="cpu", form="onnx", precisions=("fp32",), script="newruntime:run.py")


@pytest.mark.parametrize("name", RUNTIMES)
def test_each_record_names_files_that_are_there(name: str, in_checkout: Callable[[str], Path]) -> None:
    facts = RUNTIMES[name]
    if facts.session is None:
        assert facts.script is None
        return
    assert in_checkout(facts.session.partition(":")[0].replace(".", "/") + ".py").is_file()
    assert facts.script is not None
    package, _, path = facts.script.partition(":")
    assert in_checkout(package.replace(".", "/") + "/" + path).is_file()
    assert facts.install


@pytest.fixture
def in_checkout() -> Callable[[str], Path]:
    return Path(__file__).resolve().parents[2].joinpath
