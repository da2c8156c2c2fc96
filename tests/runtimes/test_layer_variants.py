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
from hwnas.runner.program import Layer

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


def feeds() -> dict[str, Any]:
    return {"x": np.random.default_rng(1).normal(size=(1, 8, 16, 16)).astype(np.float32)}


def test_onnx_runtime_reports_activations_windows_and_axes(graph: Path) -> None:
    program = OnnxRuntimeProgram(graph, **SETTINGS)
    layers = program.layers(feeds(), 1)
    assert variants(layers, "Conv") == ["activation=Relu", "activation=Clip"]
    assert variants(layers, "MaxPool") == ["kernel_shape=3.3"]
    assert variants(layers, "Transpose") == ["perm=0.2.1.3"]


def test_a_profile_leaves_no_file_and_takes_a_model_in_memory(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = OnnxRuntimeProgram(onnx.load(graph).SerializeToString(), **SETTINGS)
    assert "activation=Relu" in variants(program.layers(feeds(), 1), "Conv")
    assert not list(tmp_path.iterdir())


def test_openvino_reports_fused_operators_windows_and_axes(graph: Path) -> None:
    layers = OpenVinoProgram(graph, **SETTINGS).layers(feeds(), 1)
    first, second = variants(layers, "Convolution")
    assert first == "Convolution,Relu"
    assert second.startswith("Convolution,M")  # a minimum, a maximum, or both
    assert variants(layers, "Pool") == ["kernel_shape=3.3"]
    assert variants(layers, "Transpose") == ["perm=0.2.1.3"]
