"""What a runtime says of its layers beyond kinds and shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwnas.runner.onnxruntime import OnnxRuntimeProgram
from hwnas.runner.openvino import OpenVinoProgram
from hwnas.runner.program import Layer, layer_times

SETTINGS: dict[str, Any] = {"threads": 1, "precision": "fp32", "options": {}, "batch": 1}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution with ReLU and one with clipping, a pool of 3 x 3, and a transpose of three axes."""
    weight = np.random.default_rng(0).normal(size=(8, 8, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c", "low", "high"], ["d"], "clip"),
        helper.make_node("MaxPool", ["d"], ["e"], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["e"], ["y"], "turn", perm=[0, 2, 1, 3]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "variants",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 16, 16])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 16])],
            [
                helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.tobytes(), raw=True),
                helper.make_tensor("low", TensorProto.FLOAT, [], [0.0]),
                helper.make_tensor("high", TensorProto.FLOAT, [], [6.0]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    file = tmp_path_factory.mktemp("variants") / "graph.onnx"
    onnx.save(model, file)
    return file


def variants(layers: list[Layer], kind: str) -> list[str]:
    return [layer.variant for layer in layers if kind in layer.kind]


def in_any_layout(layers: list[Layer], kind: str) -> list[str]:
    """Variants but for the layout: the CPU decides whether channels are in blocks."""
    return [variant.removesuffix(",layout=blocked") for variant in variants(layers, kind)]


def feeds() -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(size=(1, 8, 16, 16)).astype(np.float32)}


def test_onnx_runtime_reports_activations_windows_and_axes(graph: Path) -> None:
    program = OnnxRuntimeProgram(graph, **SETTINGS)
    layers = program.layers(feeds(), 1).layers
    assert in_any_layout(layers, "Conv") == ["activation=Relu", "activation=Clip"]
    assert in_any_layout(layers, "MaxPool") == ["kernel_shape=3.3"]
    assert variants(layers, "Transpose") == ["perm=0.2.1.3"]


def test_a_profile_leaves_no_file_and_takes_a_model_in_memory(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = OnnxRuntimeProgram(onnx.load(graph).SerializeToString(), **SETTINGS)
    assert "activation=Relu" in in_any_layout(program.layers(feeds(), 1).layers, "Conv")
    assert not list(tmp_path.iterdir())


def test_openvino_reports_fused_operators_windows_and_axes(graph: Path) -> None:
    layers = OpenVinoProgram(graph, **SETTINGS).layers(feeds(), 1).layers
    first, second = variants(layers, "Convolution")
    assert first == "Convolution,Relu"
    assert second.startswith("Convolution,M")  # a minimum, a maximum, or both
    assert variants(layers, "Pool") == ["kernel_shape=3.3"]
    assert variants(layers, "Transpose") == ["perm=0.2.1.3"]


def saved(path: Path, nodes: list[onnx.NodeProto], inputs: Any, outputs: Any, weights: dict[str, Any]) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value(name, kind, shape) for name, kind, shape in inputs],
        [value(name, kind, shape) for name, kind, shape in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_table_that_is_the_first_input_is_reported_once(tmp_path: Path) -> None:
    table = np.zeros((100, 8), np.float32)
    path = saved(
        tmp_path / "g.onnx",
        [helper.make_node("Gather", ["t", "i"], ["y"], "lookup")],
        [("i", TensorProto.INT64, [1, 4])],
        [("y", TensorProto.FLOAT, [1, 4, 8])],
        {"t": table},
    )
    [layer] = OnnxRuntimeProgram(path, **SETTINGS).layers({"i": np.ones((1, 4), np.int64)}, 1).layers
    assert layer.inputs == ((100, 8), (1, 4))


def test_packed_weights_are_reported(tmp_path: Path) -> None:
    """ONNX Runtime's profile leaves out the weights that it stores in another order."""
    path = saved(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        [("x", TensorProto.FLOAT, [1, 8, 16])],
        [("y", TensorProto.FLOAT, [1, 8, 32])],
        {"w": np.ones((16, 32), np.float32)},
    )
    [layer] = OnnxRuntimeProgram(path, **SETTINGS).layers({"x": np.ones((1, 8, 16), np.float32)}, 1).layers
    assert layer.inputs == ((1, 8, 16), (16, 32))


@pytest.mark.parametrize("channels", [20, 32])
def test_onnx_runtime_reports_which_kernels_compute_blocks_of_channels(channels: int, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(channels, channels, 1, 1)).astype(np.float32)
    path = saved(
        tmp_path / "p.onnx",
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
            helper.make_node("AveragePool", ["a"], ["y"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        ],
        [("x", TensorProto.FLOAT, [1, channels, 16, 16])],
        [("y", TensorProto.FLOAT, [1, channels, 8, 8])],
        {"w": weight},
    )
    x = {"x": np.random.default_rng(0).normal(size=(1, channels, 16, 16)).astype(np.float32)}
    layers = OnnxRuntimeProgram(path, **SETTINGS).layers(x, 1).layers
    # Blocks have 8 or 16 channels, by the registers of the CPU.
    blocked = ",layout=blocked" if channels == 32 else ""
    assert variants(layers, "AveragePool") == ["kernel_shape=2.2" + blocked]


def test_openvino_reports_the_axes_of_a_transpose_that_it_moved(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "t.onnx",
        [
            helper.make_node("Transpose", ["x"], ["a"], "turn", perm=[0, 2, 1, 3]),
            helper.make_node("Mul", ["a", "c"], ["b"], "scale"),
            helper.make_node("Relu", ["b"], ["y"], "relu"),
        ],
        [("x", TensorProto.FLOAT, [1, 4, 16, 16])],
        [("y", TensorProto.FLOAT, [1, 16, 4, 16])],
        {"c": np.full((1, 1, 4, 1), 0.5, np.float32)},
    )
    x = {"x": np.random.default_rng(0).normal(size=(1, 4, 16, 16)).astype(np.float32)}
    layers = OpenVinoProgram(path, **SETTINGS).layers(x, 1).layers
    assert variants(layers, "Transpose") == ["perm=0.2.1.3"]


def test_openvino_reports_how_it_resizes(tmp_path: Path) -> None:
    def resized(x: str, y: str, mode: str) -> onnx.NodeProto:
        how = {"nearest_mode": "floor"} if mode == "nearest" else {}
        transformed = "asymmetric" if mode == "nearest" else "half_pixel"
        return helper.make_node(
            "Resize", [x, "", "s"], [y], mode, mode=mode, coordinate_transformation_mode=transformed, **how
        )

    path = saved(
        tmp_path / "s.onnx",
        [
            resized("x", "a", "nearest"),
            helper.make_node("Relu", ["a"], ["b"], "relu"),
            resized("b", "c", "linear"),
            resized("c", "y", "cubic"),
        ],
        [("x", TensorProto.FLOAT, [1, 8, 8, 8])],
        [("y", TensorProto.FLOAT, [1, 8, 64, 64])],
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )
    x = {"x": np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype(np.float32)}
    layers = OpenVinoProgram(path, **SETTINGS).layers(x, 1).layers
    assert variants(layers, "Interpolate") == ["mode=nearest,Relu", "mode=linear_onnx", "mode=cubic"]


def test_openvino_pools_regions(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "r.onnx",
        [helper.make_node("MaxRoiPool", ["x", "r"], ["y"], "pool", pooled_shape=[2, 2])],
        [("x", TensorProto.FLOAT, [1, 3, 8, 8]), ("r", TensorProto.FLOAT, [1, 5])],
        [("y", TensorProto.FLOAT, [1, 3, 2, 2])],
        {},
    )
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32), "r": np.array([[0, 0, 0, 4, 4]], np.float32)}
    assert [layer.kind for layer in OpenVinoProgram(path, **SETTINGS).layers(feeds, 1).layers]


def body(name: str, *before: str) -> onnx.GraphProto:
    """A graph that multiplies the outer tensor `x` by `w`; `before` are the inputs of a loop's body."""
    return helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w"], [f"{name} y"], f"{name} product", transA=1),
            *(helper.make_node("Identity", [one], [f"{one} out"]) for one in before[1:]),
        ],
        name,
        [helper.make_tensor_value_info(one, kind, []) for one, kind in zip(before, _LOOPED, strict=False)],
        [
            *(helper.make_tensor_value_info(f"{one} out", TensorProto.BOOL, []) for one in before[1:]),
            helper.make_tensor_value_info(f"{name} y", TensorProto.FLOAT, [256, 256]),
        ],
    )


_LOOPED = (TensorProto.INT64, TensorProto.BOOL)  # inputs of a loop's body: the iteration and the condition


def test_nodes_in_branches_and_loops_count_once(tmp_path: Path) -> None:
    """The time of a branch is not in that of its If, and a node in a loop takes the sum of its iterations."""
    path = saved(
        tmp_path / "bodies.onnx",
        [
            helper.make_node("If", ["yes"], ["a"], "if", then_branch=body("then"), else_branch=body("else")),
            helper.make_node("Loop", ["three", "yes"], ["b"], "loop", body=body("loop", "i", "go")),
            helper.make_node("ReduceSum", ["b"], ["c"], "sum", keepdims=0),
            helper.make_node("Add", ["a", "c"], ["y"], "add"),
        ],
        [("x", TensorProto.FLOAT, [256, 256]), ("yes", TensorProto.BOOL, []), ("three", TensorProto.INT64, [])],
        [("y", TensorProto.FLOAT, [256, 256])],
        {"w": np.ones((256, 256), np.float32)},
    )
    x = {"x": np.ones((256, 256), np.float32), "yes": np.array(True), "three": np.array(3, np.int64)}
    found = OnnxRuntimeProgram(path, **SETTINGS).layers(x, 12)
    ms = {layer.name: layer.ms for layer in found.layers}
    assert ms["if"] < ms["then product"] / 2
    assert ms["loop"] < ms["loop product"]
    assert ms["loop product"] > 2 * ms["then product"]
    assert "else product" not in ms
    assert variants(found.layers, "Gemm") == ["transA=1"] * 2
    assert found.whole_ms is not None
    assert found.whole_ms > ms["then product"]  # a quarter of it
    assert OnnxRuntimeProgram(path, **SETTINGS).layers(x, 1).whole_ms is None


def test_layers_sum_to_the_program_where_each_run_is_interrupted_in_another_layer() -> None:
    runs = np.ones((10, 10))
    runs[np.arange(7), np.arange(7)] += 5.0  # most runs, and no layer in most of its runs
    assert layer_times(runs, [])[0].sum() == pytest.approx(np.sort(runs.sum(axis=1))[:5].mean())
    assert np.median(runs, axis=0).sum() < 0.7 * np.median(runs.sum(axis=1))
    assert layer_times(np.array([[2.0, 3.0]]), [])[0].tolist() == [2.0, 3.0]


def test_layers_are_compared_with_the_program_at_the_same_speed() -> None:
    """A machine that is a quarter faster from the middle of a turn, between the profiled runs and the others."""
    speed = np.repeat([1.0, 1.0, 1.0, 1.0, 1.0, 1.25, 1.25, 1.25, 1.25, 1.25], 6)
    profiled, plain = (speed.reshape(5, 2, 6)[:, i].reshape(-1) for i in (0, 1))
    layers = np.tile([1.0, 3.0], (30, 1)) / profiled[:, None]
    ms, whole_ms = layer_times(layers, np.split(4.0 / plain, 5))
    assert ms.sum() == pytest.approx(whole_ms)
    assert layer_times(layers, [])[1] is None


def test_layers_are_compared_with_the_program_in_turns_of_any_length() -> None:
    """A machine that changes its speed from each profiled run to the one beside it."""
    speed = np.array([1.0, 1.4, 1.4, 1.0, 1.0, 1.0, 1.0])
    layers = np.tile([1.0, 3.0], (7, 1)) / speed[:, None]
    ms, whole_ms = layer_times(layers, [[4.0], [4.0, 4.0 / 1.4], [4.0] * 4])
    assert ms.tolist() == pytest.approx([1.0 * 0.8, 3.0 * 0.8], rel=0.1)
    assert whole_ms == pytest.approx(ms.sum())


@pytest.mark.parametrize(("ms", "turns"), [(0.5, [6, 6]), (7.0, [2] * 6), (30.0, [1] * 12)])
def test_turns_are_as_short_as_runs_are_long(
    ms: float, turns: list[int], graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = OnnxRuntimeProgram(graph, **SETTINGS)
    monkeypatch.setattr(program, "time_ms", lambda call: ms)
    seen: list[bool] = []
    assert [len(turn) for turn in program._in_turns(seen.append, feeds(), 12)] == turns
    assert sum(seen) == 12
    assert seen[:3] == [False, False, True]


@pytest.mark.parametrize("at", [slice(0), slice(2), slice(0, None, 2), slice(2, 12), slice(None)])
def test_layers_shorter_than_the_clock_tells(at: slice) -> None:
    """Profiles whose layers take 0 µs in some runs or all; the program's time stays a positive number."""
    runs = np.zeros((12, 2))
    runs[at] = 1e-3
    assert 0 < (layer_times(runs, [[0.01] * 6] * 2)[1] or 0.0) < np.inf
    assert layer_times(runs[:, :0], [[0.01] * 6] * 2)[1] == pytest.approx(0.01)
