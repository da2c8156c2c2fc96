"""Objects of other packages and of users' files: found by name, loaded when asked for, reported when they cannot be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from hwnas import plugins
from hwnas.accuracy.predictors import fit_predictor, predictor_names
from hwnas.cli.main import app
from hwnas.data import DATASETS, ClutteredDigits, HuggingFace, Images, dataset_names, open_data
from hwnas.data.listops import ListOps
from hwnas.data.pathfinder import Pathfinder
from hwnas.data.texts import Texts
from hwnas.errors import CheckpointError, PluginError, SpecError, UnknownName
from hwnas.files.spec import toml_text
from hwnas.latency.imports import format_names, read_files
from hwnas.pipeline import read_job
from hwnas.plugins import Registry, absolute_name
from hwnas.search import STRATEGIES, Problem, resource, solve, strategy_names
from hwnas.spaces import SPACES, Domain, InputKind, make_space, space_names
from hwnas.supernet import Supernet, load_supernet, save_supernet
from hwnas.targets import load_recipe, recipes
from hwnas.targets.runtimes import runtime_facts, runtime_names
from hwnas.workflows.inputs import reopen_data

DOCS = Path(__file__).resolve().parents[1] / "docs"
MODULE = """
from hwnas.data.digits import ClutteredDigits
from hwnas.accuracy.predictors import Predictor
from hwnas.search.strategies.base import Outcome
from hwnas.spaces import SPACES
from hwnas.targets.runtimes import RUNTIMES

SPACE, RUNTIME = SPACES["mobilenetv3-tiny"], RUNTIMES["onnxruntime"]

def data(path, seed):
    return ClutteredDigits(seed=seed)

def strategy(problem, run):
    return Outcome(codes=problem.space.encode([problem.space.smallest]), proved=False, stopped=False, evaluations=1)

class Zero:
    def predict(self, codes):
        return 0.0 * codes[:, 0], 0.0 * codes[:, 0]

PREDICTOR = Predictor(fit=lambda space, samples, seed: [Zero() for _ in samples])

def parse(content, name):
    return {}
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a package of one module of the same name with entry points: group -> name -> object."""
    plugins._warn_left_out.cache_clear()

    def installed(name: str, text: str, points: dict[str, dict[str, str]]) -> Path:
        site = tmp_path / name
        facts = site / f"{name}-1.2.dist-info"
        facts.mkdir(parents=True)
        (site / f"{name}.py").write_text(text)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in points.items()]
        (facts / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return site

    return installed


def registry(group: str = "hwnas.things") -> Registry[int]:
    return Registry("thing", group, {"one": 1}, fits=lambda found: isinstance(found, int), needs="an int")


def test_an_object_is_imported_when_it_is_asked_for(install: Install) -> None:
    install("plug", "TWO = 2", {"hwnas.things": {"two": "plug:TWO"}})
    assert registry().names() == ["one", "two"]
    assert "two" in registry()
    assert "plug" not in sys.modules
    assert registry()["two"] == 2
    assert "plug" in sys.modules
    assert dict(registry().plugins()) == {"two": 2}


def test_a_plugin_that_cannot_be_loaded_is_named_and_breaks_nothing_else(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("broken", "1 / 0", {"hwnas.things": {"two": "broken:TWO"}})
    install("plug", "THREE = 3", {"hwnas.things": {"three": "plug:THREE"}})
    known = registry()
    assert (known["one"], known["three"]) == (1, 3)
    message = r"the thing 'two' of the plugin broken 1.2 cannot be loaded from broken:TWO: ZeroDivisionError: division"
    with pytest.raises(PluginError, match=message):
        known["two"]
    assert not caplog.text
    for _ in range(2):
        assert dict(known.plugins()) == {"three": 3}
    assert len(caplog.messages) == 1
    assert re.search(message, caplog.messages[0])


def test_a_name_that_is_taken_is_refused(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("plug", "ONE = 10", {"hwnas.things": {"one": "plug:ONE"}})
    assert registry()["one"] == 1
    assert registry().names() == ["one"]
    assert "the thing 'one' of the plugin plug 1.2: hwnas has a thing of that name" in caplog.text


def test_two_plugins_of_one_name_are_both_named(install: Install) -> None:
    for name in ("plug", "other"):
        install(name, "TWO = 2", {"hwnas.things": {"two": f"{name}:TWO"}})
    with pytest.raises(PluginError, match=r"'two' is registered by other 1.2 and plug 1.2; uninstall all but one"):
        registry()["two"]


@pytest.mark.parametrize(("value", "given"), [("'x'", "of the type str"), ("type('A', (), {})", "the class A")])
def test_an_object_of_another_kind_is_refused(value: str, given: str, install: Install) -> None:
    install("plug", f"TWO = {value}", {"hwnas.things": {"two": "plug:TWO"}})
    with pytest.raises(PluginError, match=f"'two' of the plugin plug 1.2 is {given}; it should be an int"):
        registry()["two"]


def test_an_unknown_name_says_where_more_come_from() -> None:
    with pytest.raises(
        UnknownName, match=r"Known: one. If it came from a plugin, install the package that registers it"
    ):
        registry()["ten"]


@pytest.fixture
def plugin(install: Install) -> None:
    """One object of each kind."""
    points = {
        "spaces": "SPACE",
        "runtimes": "RUNTIME",
        "datasets": "data",
        "strategies": "strategy",
        "table_formats": "parse",
        "predictors": "PREDICTOR",
    }
    install("plug", MODULE, {f"hwnas.{group}": {"plugged": f"plug:{name}"} for group, name in points.items()})


@pytest.mark.usefixtures("plugin")
def test_every_registry_takes_plugins(tmp_path: Path) -> None:
    space = make_space("plugged", classes=5)
    assert (space.name, space.classes) == ("plugged", 5)
    assert Domain.of(space.fix(resolution=24)).make().choices == space.fix(resolution=24).choices
    assert open_data("plugged", seed=1).name == "plugged"
    assert runtime_facts("plugged").form == "onnx"
    small = make_space("mobilenetv3-tiny")
    problem = Problem(
        space=small, accuracy=small.macs, objectives=(resource(small, "params"),), budgets={}, confidence=None
    )
    assert solve(problem, "plugged").candidates[0].arch == small.smallest
    codes = small.sample(3, seed=0)
    np.testing.assert_allclose(fit_predictor("plugged", small, codes, [1, 2, 6]).predict(codes)[0], 3)
    (tmp_path / "table").write_text("x")
    assert read_files([tmp_path / "table"], "plugged").means == {}
    for names in (space_names(), dataset_names(), runtime_names(), strategy_names(), format_names(), predictor_names()):
        assert names[-1] == "plugged"


@pytest.mark.usefixtures("plugin")
def test_help_lists_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    helped = {
        verb: CliRunner().invoke(app, [*verb.split(), "--help"]).stdout for verb in ("train", "search", "tables import")
    }
    for names, verb in (
        (space_names(), "train"),
        (dataset_names(), "train"),
        (strategy_names(), "search"),
        (predictor_names(), "search"),
        (format_names(), "tables import"),
    ):
        assert "plugged" in names
        assert ", ".join(names) in helped[verb]
    assert not [
        text for text in helped.values() if re.search(r"\{(spaces|datasets|strategies|formats|predictors)\}", text)
    ]


def test_help_lists_the_differentiable_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    from hwnas.search.differentiable import METHODS

    monkeypatch.setenv("COLUMNS", "400")
    *first, last = METHODS
    assert f"{', '.join(first)} or {last}" in CliRunner().invoke(app, ["search", "--help"]).stdout


@pytest.mark.usefixtures("plugin")
def test_without_the_plugin_what_it_made_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_supernet(
        Supernet(make_space("plugged"), seed=0),
        tmp_path,
        data={"name": "plugged", "path": None},
        classes=[],
        training={},
    )
    recipe = load_recipe("onnxruntime-cpu-fp32").model_copy(update={"name": "plugged-fp32", "runtime": "plugged"})
    home = tmp_path / "home"
    (home / "exporters").mkdir(parents=True)
    (home / "exporters" / "plugged-fp32.toml").write_text(toml_text(recipe))
    monkeypatch.setenv("HWNAS_HOME", str(home))
    assert load_supernet(tmp_path)[0].space.name == "plugged"
    assert load_recipe("plugged-fp32").facts.form == "onnx"
    monkeypatch.undo()
    monkeypatch.setenv("HWNAS_HOME", str(home))
    message = r"unknown space 'plugged'.* If it came from a plugin, install the package"
    with pytest.raises(CheckpointError, match=message):
        load_supernet(tmp_path)
    with pytest.raises(UnknownName, match=r"unknown dataset 'plugged'.* If it came from a plugin, install the package"):
        open_data("plugged")
    with pytest.raises(
        SpecError, match=r"runtime is 'plugged'; it should be .*; if 'plugged' came from a plugin, install the package"
    ):
        load_recipe("plugged-fp32")


def test_recipes_come_with_a_runtime(install: Install) -> None:
    text = "from dataclasses import replace\nfrom hwnas.targets.runtimes import RUNTIMES\n"
    text += "RUNTIME = replace(RUNTIMES['onnxruntime'], recipes='package_of_plug:recipes')\n"
    site = install("plug", text, {"hwnas.runtimes": {"plugged": "plug:RUNTIME"}})
    recipe = load_recipe("onnxruntime-cpu-fp32").model_copy(update={"name": "plugged-fp32", "runtime": "plugged"})
    folder = site / "package_of_plug" / "recipes"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "plugged-fp32.toml").write_text(toml_text(recipe))
    assert list(recipes())[-1] == "plugged-fp32"
    assert load_recipe("plugged-fp32").runtime == "plugged"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mine" / "own.py"
    path.parent.mkdir()
    path.write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return path


def test_a_space_of_a_file_opens_again_from_anywhere(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = make_space("mine/own.py:SPACE", in_channels=1)
    assert space.name == f"{file}:SPACE"
    save_supernet(Supernet(space, seed=0), tmp_path / "net", data={"name": None, "path": None}, classes=[], training={})
    monkeypatch.chdir("/")
    assert load_supernet(tmp_path / "net")[0].space.choices == space.choices
    assert Domain.of(space).make().distinct_ops == space.distinct_ops
    file.unlink()
    with pytest.raises(CheckpointError, match=r"own.py:SPACE' is not known: .*own.py does not exist; restore it"):
        load_supernet(tmp_path / "net")


def test_a_dataset_of_a_file_opens_again_from_anywhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_data("mine/own.py:data")
    assert first.name == f"{file}:data"
    monkeypatch.chdir("/")
    assert np.array_equal(
        open_data(first.name).train_batch(0, 2, 24, seed=0)[0], first.train_batch(0, 2, 24, seed=0)[0]
    )


def test_a_file_that_only_a_file_names_does_not_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle, a supernet or a table of somebody else, which names Python code that lies beside it."""
    ran = tmp_path / "ran"
    file.write_text(f"open({str(ran)!r}, 'w')\n{MODULE}")
    evil = Domain(space=f"{file}:SPACE", in_channels=1, classes=3, choices={})
    facts = SimpleNamespace(data={"name": f"{file}:data", "path": None}, classes=["a", "b", "c"])
    for opens in (evil.make, lambda: reopen_data(facts)):
        with pytest.raises(
            PluginError, match=rf"you did not name its file yourself\. .* allow it to run: HWNAS_CODE={file}"
        ):
            opens()
    assert not ran.exists()
    monkeypatch.setenv("HWNAS_CODE", f"/nothing.py{os.pathsep}{file}")
    evil.make()
    assert ran.exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("mine/own.py:SPAC", UnknownName, r"unknown space in .*own.py: 'SPAC'. Did you mean 'SPACE'"),
        ("mine/own.py:data", PluginError, r"own.py:data' is of the type function; it should be an object with"),
        ("mine/none.py:SPACE", PluginError, r"none.py does not exist"),
        ("mine/wrong.py:SPACE", PluginError, r"cannot be loaded: .*wrong.py raises ZeroDivisionError"),
        ("mine/own.txt:SPACE", UnknownName, r"unknown space 'mine/own.txt:SPACE'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name: str, error: type[Exception], message: str, file: Path) -> None:
    file.with_name("wrong.py").write_text("1 / 0")
    with pytest.raises(error, match=message):
        make_space(name)


def test_a_dataset_that_is_none_is_refused(file: Path) -> None:
    file.write_text("def data(path, seed): return 3")
    with pytest.raises(PluginError, match=r"own.py:data' returns int; it should be a function"):
        open_data(f"{file}:data")


def test_files_in_a_job_count_from_its_folder(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = file.with_name("job.toml")
    job.write_text(
        'schema = 1\ntargets = ["this/onnxruntime-cpu-fp32"]\nbudget = "50%"\n'
        '[space]\nname = "own.py:SPACE"\n[data]\nname = "own.py:data"\n'
    )
    monkeypatch.chdir("/")
    read = read_job(job)
    assert (read.space.name, read.data.name) == (f"{file}:SPACE", f"{file}:data")
    assert read.make_space(reads=InputKind(1), classes=3).name == read.space.name
    assert absolute_name("mobilenetv3") == "mobilenetv3"


def test_datasets_have_the_names_of_their_classes() -> None:
    classes = (ClutteredDigits, Images, HuggingFace, ListOps, Pathfinder)
    assert list(DATASETS) == [*(each.name for each in classes), "pixel-digits", Texts.name]
    assert list(SPACES) == [make_space(name).name for name in SPACES]


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("your-own-data.md", dataset_names),
        ("search.md", lambda: list(STRATEGIES)),
        ("importing-tables.md", format_names),
        ("jobs.md", space_names),
    ],
)
def test_docs_list_what_the_registries_hold(page: str, names: Callable[[], list[str]]) -> None:
    text = (DOCS / page).read_text()
    assert not [name for name in names() if f"`{name}`" not in text and f"format {name}" not in text]
