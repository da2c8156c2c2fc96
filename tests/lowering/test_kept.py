"""Exported ops are kept in files and exported once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from hwnas.errors import OutputError
from hwnas.lowering import form_of, kept
from hwnas.spaces import Op
from hwnas.targets import Recipe


def op(size: int = 8, kernel: int = 3, channels: int = 4) -> Op:
    attributes = (("act", "relu"), ("kernel", kernel), ("stride", 1))
    return Op("conv", (3, size, size), (channels, size, size), attributes)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "lowered"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ops each export call was of."""
    import torch

    calls: list[int] = []
    real = torch.onnx.export

    def export(module: torch.nn.Module, *args: object, **options: object) -> object:
        calls.append(len(module.branches))
        return real(module, *args, **options)

    monkeypatch.setattr(torch.onnx, "export", export)
    return calls


def contents(programs: dict[Op, object]) -> list[bytes]:
    assert all(isinstance(program, onnx.ModelProto) for program in programs.values())
    return [program.SerializeToString(deterministic=True) for program in programs.values()]


def test_an_op_is_exported_once(recipe: Recipe, exports: list[int], home: Path) -> None:
    first = form_of(recipe).lower_ops([op(), op(kernel=5)])
    assert exports == [2]
    assert contents(form_of(recipe).lower_ops([op(), op(kernel=5)])) == contents(first)
    # Other sizes, and another runtime that takes the same graphs, need no other export; a new op does, alone.
    openvino = recipe.model_copy(update={"name": "other", "runtime": "openvino", "threads": 2})
    assert contents(form_of(openvino).lower_ops([op(), op(kernel=5)])) == contents(first)
    [larger] = form_of(recipe).lower_ops([op(size=16)]).values()
    assert [axis.dim_value for axis in larger.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]
    assert exports == [2]
    form_of(recipe).lower_ops([op(), op(channels=8)])
    assert exports == [2, 1]
    assert len(list(home.iterdir())) == 3


@pytest.mark.parametrize("changed", [{"batch": 2}, {"opset": 21}])
def test_what_a_graph_depends_on_makes_another(recipe: Recipe, exports: list[int], changed: dict[str, int]) -> None:
    form_of(recipe).lower_ops([op()])
    form_of(recipe.model_copy(update=changed)).lower_ops([op()])
    assert exports == [1, 1]


def test_another_exporter_makes_another(recipe: Recipe, exports: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    form_of(recipe).lower_ops([op()])
    monkeypatch.setattr(kept, "_exporter", lambda: ["torch 99"])
    form_of(recipe).lower_ops([op()])
    assert exports == [1, 1]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: data[:-1] + b"\1"])
def test_a_damaged_file_is_exported_anew(recipe: Recipe, exports: list[int], home: Path, damage: object) -> None:
    form_of(recipe).lower_ops([op()])
    [path] = home.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    fresh = contents(form_of(recipe).lower_ops([op()]))
    assert exports == [1, 1]
    assert contents(form_of(recipe).lower_ops([op()])) == fresh
    assert exports == [1, 1]
    assert len(list(home.iterdir())) == 1


def test_files_are_bounded(recipe: Recipe, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    form_of(recipe).lower_ops([op(), op(kernel=5)])
    for path in home.iterdir():
        os.utime(path, (1, 1))
    form_of(recipe).lower_ops([op()])  # read now
    [old] = [path for path in home.iterdir() if path.stat().st_mtime == 1]
    total = sum(path.stat().st_size for path in home.iterdir())
    monkeypatch.setattr(kept, "_MOST_BYTES", total)
    form_of(recipe).lower_ops([op(kernel=1)])
    assert not old.exists()
    assert sum(path.stat().st_size for path in home.iterdir()) <= total


def test_where_nothing_can_be_kept_ops_are_lowered(
    recipe: Recipe, exports: list[int], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.parent.mkdir()
    home.write_text("a file")
    assert len(form_of(recipe).lower_ops([op()])) == 1
    assert "lowered ops cannot be cached and will be lowered again: cannot write" in caplog.text
    assert exports == [1]


def test_networks_are_files_while_they_are_timed(tmp_path: Path, exports: list[int]) -> None:
    from hwnas.lowering.networks import assembled, lower_ops, scratch
    from hwnas.profiling.profiler import calibration_codes
    from hwnas.spaces import make_space
    from hwnas.targets import resolve_target

    target, space = resolve_target("this/onnxruntime-cpu-fp32"), make_space("nasbench201")
    codes = calibration_codes(space, 4)[:2]
    ops = list(dict.fromkeys(op for arch in space.decode(codes) for _, op in space.ops(arch)))
    programs = lower_ops(space, ops, form_of(target.recipe))
    count = len(exports)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "left").write_text("by a kill")
    with scratch(tmp_path / "programs") as folder:
        found = assembled(space, form_of(target.recipe), codes, programs, folder)
        assert not (folder / "left").exists()
        assert all(isinstance(path, Path) and path.is_file() for path in found.values())
        # A validation, or a resumed profile, lowers the same ops without an export.
        assert lower_ops(space, ops, form_of(target.recipe)).keys() == programs.keys()
        assert len(exports) == count >= 1
    assert not folder.exists()


def test_without_a_home_ops_are_exported_and_not_kept(monkeypatch):
    monkeypatch.delenv("HWNAS_HOME", raising=False)
    monkeypatch.setattr(kept, "home", lambda: (_ for _ in ()).throw(OutputError("there is no home")))
    made = iter(range(10))
    assert list(kept.exported(["a", "b"], {}, lambda ops: [f"{op}{next(made)}" for op in ops]).values()) == ["a0", "b1"]
