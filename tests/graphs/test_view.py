"""The view of an ONNX graph: what it says of nodes and values, and what it leaves unknown."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwnas.graphs import Graph

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@pytest.fixture
def model() -> onnx.ModelProto:
    """A convolution whose output is read by a ReLU and, twice, by an addition; a Split beside it."""
    nodes = [
        helper.make_node(
            "Constant", [], ["two"], name="two", value=numpy_helper.from_array(np.array([2.0], np.float32))
        ),
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1], group=1),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["c", "c"], ["a"]),
        helper.make_node("Clip", ["r", "", "two"], ["y"], name="clip"),
        helper.make_node("Split", ["a"], ["", "s"], name="split", num_outputs=2),
    ]
    inputs = [helper.make_tensor_value_info("x", FLOAT, ["batch", 3, 8, 8])]
    outputs = [
        helper.make_tensor_value_info("y", FLOAT, [1, 4, 8, 8]),
        helper.make_tensor_value_info("s", FLOAT, None),
    ]
    weights = [
        numpy_helper.from_array(np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3), "w"),
        numpy_helper.from_array(np.array([1, 2]), "unused"),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 20)]
    )


def test_nodes(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    assert [node.op_type for node in graph.nodes] == ["Constant", "Conv", "Relu", "Add", "Clip", "Split"]
    assert graph.op_types == {"Constant", "Conv", "Relu", "Add", "Clip", "Split"}
    conv, add, clip = graph.nodes[1], graph.nodes[3], graph.nodes[4]
    assert (conv.inputs, conv.outputs, conv.domain) == (("x", "w"), ("c",), "")
    assert clip.inputs == ("r", "", "two")
    assert (conv.label, add.name, add.label) == ("conv", "", "a")
    assert conv.proto is not graph.nodes[2].proto
    assert conv.proto.SerializeToString() == model.graph.node[1].SerializeToString()


def test_attributes_are_python_values(model: onnx.ModelProto) -> None:
    constant, conv, *_ = Graph(model).nodes
    assert conv.attribute("pads", list[int]()) == [1, 1, 1, 1]
    assert conv.attribute("group", 7) == 1
    assert conv.attribute("strides", [1, 1]) == [1, 1]
    assert constant.attribute("value", TensorProto()).data_type == FLOAT


def test_values(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    assert (graph.inputs, graph.outputs) == (("x",), ("y", "s"))
    assert list(graph.initializers) == ["w", "unused"]
    assert graph.types == {"x": FLOAT, "y": FLOAT, "s": FLOAT, "w": FLOAT, "unused": INT64}
    assert graph.shapes == {"x": (None, 3, 8, 8), "y": (1, 4, 8, 8), "w": (4, 3, 3, 3), "unused": (2,)}
    assert graph.static_shapes == {"y": (1, 4, 8, 8), "w": (4, 3, 3, 3), "unused": (2,)}


def test_inferred_values(model: onnx.ModelProto) -> None:
    graph = Graph(onnx.shape_inference.infer_shapes(model))
    assert (graph.types["c"], graph.shapes["c"]) == (FLOAT, (None, 4, 8, 8))
    assert "c" not in graph.static_shapes
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = Graph(onnx.shape_inference.infer_shapes(model))
    assert graph.static_shapes["c"] == (1, 4, 8, 8)


def test_a_scalar_has_a_shape_and_a_negative_axis_is_unknown() -> None:
    values = [helper.make_tensor_value_info("scalar", FLOAT, []), helper.make_tensor_value_info("odd", FLOAT, [-1, 2])]
    graph = Graph(helper.make_model(helper.make_graph([], "g", values, [])))
    assert graph.shapes == {"scalar": (), "odd": (None, 2)}
    assert graph.static_shapes == {"scalar": ()}


def test_what_is_stored_counts_over_what_is_declared(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(helper.make_tensor_value_info("w", INT64, [9]))
    graph = Graph(model)
    assert (graph.types["w"], graph.shapes["w"]) == (FLOAT, (4, 3, 3, 3))


def test_every_declaration_can_be_seen(model: onnx.ModelProto) -> None:
    """Where a value is declared twice, the shape used is that of the last one."""
    model.graph.value_info.append(helper.make_tensor_value_info("x", FLOAT, [2**40]))
    graph = Graph(model)
    assert list(graph.declared_shapes()) == [("x", (None, 3, 8, 8)), ("x", (2**40,)), ("y", (1, 4, 8, 8))]
    assert graph.shapes["x"] == (2**40,)


def test_producers_and_consumers(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    _, conv, relu, add, clip, split = graph.nodes
    assert graph.producer("c") is conv
    assert graph.producer("s") is split
    assert [graph.producer(name) for name in ("x", "w", "nowhere", "")] == [None] * 4
    assert graph.consumers("c") == (relu, add)
    assert graph.consumers("two") == (clip,)
    assert graph.consumers("y") == graph.consumers("") == ()


def test_constants(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    two, weight = graph.constant("two"), graph.constant("w")
    assert two is not None and two.tolist() == [2.0]
    assert weight is not None and weight.shape == (4, 3, 3, 3)
    assert graph.constant("c") is graph.constant("x") is graph.constant("nowhere") is None


def test_a_constant_without_a_tensor_is_unknown() -> None:
    node = helper.make_node("Constant", [], ["y"], value_float=1.0)
    assert Graph(helper.make_model(helper.make_graph([node], "g", [], []))).constant("y") is None


def test_upstream(model: onnx.ModelProto) -> None:
    graph = Graph(model)
    constant, conv, relu, add, clip, split = graph.nodes
    assert graph.upstream("y") == (constant, conv, relu, clip)
    assert graph.upstream("s") == (conv, add, split)
    assert graph.upstream("x") == ()


def test_opset(model: onnx.ModelProto) -> None:
    assert Graph(model).opset == 20
    del model.opset_import[:]
    assert Graph(model).opset == 0
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))
    assert Graph(model).opset == 18


def test_the_view_imports_neither_torch_nor_onnx_ir() -> None:
    """Every check of a bundle imports it."""
    program = "import sys; import hwnas.graphs; print({'torch', 'onnx_ir', 'onnxruntime'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "set()"
