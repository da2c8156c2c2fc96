"""What `import hwnas` costs and offers, and what the wheel holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hwnas

ROOT = Path(__file__).resolve().parents[1]

# What a user who only wants to read a table or a device should not have to load.
HEAVY = {
    "torch", "onnx", "onnxruntime", "onnxscript", "openvino", "tensorrt", "sklearn", "scipy", "pandas", "polars",
    "plotly", "matplotlib", "networkx", "PIL", "datasets", "rich",
}  # fmt: skip


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_import_loads_no_runtime_no_scikit_learn_no_plotting():
    loaded = loaded_after("import hwnas")
    assert "hwnas" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("package", ["files", "targets", "spaces", "errors", "cli.devices"])
def test_light_packages_stay_light(package):
    assert not loaded_after(f"import hwnas.{package}") & (HEAVY - {"networkx"})


def test_command_line_starts_without_torch_or_a_runtime():
    assert not loaded_after("import hwnas.cli.main") & {"torch", "onnx", "onnxruntime", "sklearn", "scipy"}


@pytest.mark.parametrize(
    ("arguments", "code", "needed"),
    [
        (["tables", "list"], 0, set()),
        (["tables", "show", "amd-epyc-f25m17-2c/torch-cpu-fp32"], 0, set()),
        (["verify", "--schema"], 0, set()),
        (["verify", "no-bundle"], 2, set()),
        (["report", "no-run"], 2, {"plotly"}),
    ],
)
def test_small_verbs_load_no_library_that_they_do_not_need(arguments, code, needed):
    loaded = loaded_after(
        f"import contextlib, io, sys\nsys.argv = ['hwnas', *{arguments}]\nfrom hwnas.cli.main import main\n"
        "code = 0\ntry:\n    with contextlib.redirect_stdout(io.StringIO()):\n        main()\n"
        f"except SystemExit as ended:\n    code = ended.code\nassert code == {code}, code"
    )
    assert not loaded & (HEAVY - {"rich", "networkx"} - needed)


def test_public_names_are_sorted_and_all_there():
    assert hwnas.__all__ == sorted(hwnas.__all__)
    for name in hwnas.__all__:
        assert getattr(hwnas, name).__name__ == name
    assert dir(hwnas) == hwnas.__all__


def test_a_name_stays_what_it_is_when_a_room_is_imported():
    """A function named like a room would be replaced by the room when that is imported."""
    rooms = {path.stem for path in (ROOT / "hwnas").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not rooms & set(hwnas.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        hwnas.serach  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [path] = out.glob("*.whl")
    return path


def test_wheel_holds_what_users_add(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for folder in ("devices", "exporters"):
        for path in (ROOT / folder).glob("*.toml"):
            assert f"hwnas/share/{folder}/{path.name}" in names
    assert "hwnas/share/latency_tables/README.md" in names
    assert "hwnas/pipeline/quickstart.toml" in names
    assert "hwnas/deploy/manifest.schema.json" in names
    assert "hwnas/runtimes/scripts/onnxruntime.py" in names
    assert "hwnas/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_installed_wheel_finds_its_devices_from_an_empty_folder(wheel, tmp_path):
    """The wheel alone, outside the checkout; its dependencies are those of the present environment."""
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path[:] = [{str(site)!r}, *[p for p in sys.path if p != {str(ROOT)!r}]]\n"
        "import hwnas; assert hwnas.__file__.startswith(sys.path[0]), hwnas.__file__\n"
        "sys.argv = ['hwnas', 'devices', 'list', '--json']\n"
        "from hwnas.cli.main import main; main()"
    )
    env = {**os.environ, "HWNAS_HOME": str(tmp_path / "home"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=empty, env=env
    )
    shipped = {path.stem for path in (ROOT / "devices").glob("*.toml")}
    assert shipped <= {device["name"] for device in json.loads(done.stdout)}
    assert not list(empty.iterdir())


def test_files_are_small():
    """A file of more than 400 lines does more than one thing."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "hwnas").rglob("*.py")}
    assert len(lines) > 100
    assert {str(path): count for path, count in lines.items() if count > 400} == {}


def test_benchmarks_use_what_users_use():
    """What a benchmark needs of the command line is a use case, and belongs to `hwnas.workflows`."""
    scripts = list((ROOT / "benchmarks").glob("*.py"))
    assert len(scripts) > 10
    assert [script.name for script in scripts if "hwnas.cli" in script.read_text(encoding="utf-8")] == []
