"""Graphs that are larger than an ONNX file may be, made by a limit that is smaller."""

from __future__ import annotations

import tempfile

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, numpy_helper

from hwnas.errors import GraphError, OutputError
from hwnas.lowering import precision, serialized
from hwnas.lowering.quantize import Quantizer
from hwnas.targets import load_recipe, with_weights

HELP = "choose a smaller network, e.g. with --budget size_bytes=1900M, or a recipe without ONNX such as torch-cpu-fp32"


@pytest.fixture
def model() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32).reshape(64, 64, 1, 1), "weight")
    shape = [1, 64, 4, 4]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weight"], ["output"], name="layer")],
        "layer",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class TooLarge:
    """A graph whose bytes protobuf refuses, as its implementations do."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def SerializeToString(self, *, deterministic: bool) -> bytes:  # noqa: N802
        raise self.error


@pytest.mark.parametrize("error", [ValueError("exceeds maximum protobuf size of 2GB"), EncodeError("Failed")])
def test_what_protobuf_refuses(error: Exception) -> None:
    with pytest.raises(GraphError, match=str(error).partition(":")[0]) as caught:
        serialized.serialized(TooLarge(error))  # type: ignore[arg-type]
    assert HELP in str(caught.value)


def test_bytes_of_a_graph(model: onnx.ModelProto) -> None:
    assert onnx.load_from_string(serialized.serialized(model)) == model


def test_a_graph_above_the_limit(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialized, "MAX_BYTES", 10_000)
    recipe = with_weights(load_recipe("onnxruntime-cpu-int8"), ())
    assert recipe.quantization is not None
    images = np.random.default_rng(0).standard_normal((2, 64, 4, 4), np.float32)
    for lower in (
        lambda: precision.checked(model, recipe),
        lambda: Quantizer(model, images, recipe.quantization),  # type: ignore[arg-type]
    ):
        with pytest.raises(GraphError, match="has at most 10000 bytes") as caught:
            lower()
        assert HELP in str(caught.value)


def test_calibration_without_a_place_for_its_files(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/hwnas")
    recipe = with_weights(load_recipe("onnxruntime-cpu-int8"), ())
    assert recipe.quantization is not None
    images = np.random.default_rng(0).standard_normal((2, 64, 4, 4), np.float32)
    with pytest.raises(OutputError, match=r"temporary files of int8 calibration .*[Ss]et TMPDIR"):
        Quantizer(model, images, recipe.quantization)
