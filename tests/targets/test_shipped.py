"""Every file in `devices/`, `exporters/` and `latency_tables/` can be read and fits the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwnas.files import read_spec
from hwnas.latency.kernels import KernelModel, parse_kernel, read_kernels
from hwnas.latency.kernels.bound import fitted_bound
from hwnas.targets import Device, Recipe, resolve_target

ROOT = Path(__file__).parents[2]
DEVICES = sorted((ROOT / "devices").glob("*.toml"))
RECIPES = sorted((ROOT / "exporters").glob("*.toml"))
TABLES = sorted(path for path in (ROOT / "latency_tables").glob("*/*") if path.is_file())
KERNELS = sorted((ROOT / "latency_tables").glob("*/*.kernels.json"))


def test_there_are_some() -> None:
    assert DEVICES
    names = {path.stem for path in RECIPES}
    measured = (
        *("onnxruntime-cpu-fp32", "onnxruntime-cpu-int8", "openvino-cpu-fp32", "openvino-cpu-bf16"),
        *("openvino-cpu-int8", "torch-cpu-fp32", "torch-compile-cpu-fp32"),
    )
    on_gpu = ("fp16", "bf16", "int8")
    assert {f"tensorrt-{precision}" for precision in on_gpu} <= names
    assert {"torch-cuda-fp16", "onnxruntime-cuda-fp16", "onnxruntime-tensorrt-fp16"} <= names
    assert {*measured, *(f"{name}-2t" for name in measured), "roofline-cpu-fp32"} <= names


@pytest.mark.parametrize("path", DEVICES, ids=lambda path: path.stem)
def test_devices(path: Path) -> None:
    assert read_spec(path, Device).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes(path: Path) -> None:
    recipe = read_spec(path, Recipe)
    assert recipe.name == path.stem
    assert recipe.precision in path.stem.split("-")
    assert recipe.threads == (2 if path.stem.endswith("-2t") else 1)
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem.endswith("-2t")], ids=lambda path: path.stem)
def test_recipes_of_two_threads_differ_in_nothing_else(path: Path) -> None:
    two = read_spec(path, Recipe)
    one = read_spec(path.with_stem(path.stem.removesuffix("-2t")), Recipe)
    words = {"name", "description", "threads"}
    assert two.model_dump(exclude=words) == one.model_dump(exclude=words)


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tables_of_kernels_predict(path: Path) -> None:
    target = resolve_target(f"{path.parent.name}/{path.name.removesuffix('.kernels.json')}")
    table = read_kernels(path, target)
    assert len(table.spreads) == len(table.errors) == len(table.networks)
    bound = fitted_bound(table.errors, table.spreads)
    model = KernelModel(  # without networks: a context takes 10 s
        table.rows, bound=bound, kind_spreads=table.kind_spreads, unknown_factor=table.unknown_factor
    )
    found = model.network([parse_kernel(row.kernel) for row in table.rows[:10]])
    assert {part.how for part in found.kernels} == {"measured"}
    assert [part.ms for part in found.kernels] == pytest.approx([row.ms for row in table.rows[:10]])
    assert found.upper_ms is not None
    assert found.upper_ms > found.ms
    assert table.validation.within_10pct > 0.75


@pytest.mark.parametrize("path", sorted({*TABLES} - {*KERNELS}), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tables(path: Path) -> None:
    assert path.suffix in (".csv", ".toml")
    assert path.with_suffix(".csv").is_file()
    assert path.with_suffix(".toml").is_file()
    assert path.parent.name in {device.stem for device in DEVICES}
    assert path.stem in {recipe.stem for recipe in RECIPES}


@pytest.mark.parametrize("folder", ["devices", "exporters", "latency_tables"])
def test_nothing_else_lies_there(folder: str) -> None:
    names = {p.name for p in (ROOT / folder).iterdir() if p.is_file() and p.suffix != ".toml"}
    assert names == {"README.md"}


@pytest.mark.parametrize(("folder", "model"), [("devices", Device), ("exporters", Recipe)])
def test_the_example_in_the_readme_is_valid(folder: str, model: type[Device | Recipe], tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", (ROOT / folder / "README.md").read_text(), re.DOTALL)
    assert example
    (tmp_path / "example.toml").write_text(example[1])
    read_spec(tmp_path / "example.toml", model)
