"""Graphs written from parts of others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwnas.graphs import Graph, add_node, copied, cut, model_of, sort_nodes


def weight(name: str, value: float) -> TensorProto:
    tensor = numpy_helper.from_array(np.array([value], np.float32), name)
    tensor.metadata_props.add(key="origin", value="here")
    return tensor


@pytest.fixture
def whole() -> onnx.ModelProto:
    """Two branches: ``y0 = relu(x0 + 2)`` and ``y1 = x1 * 3 + x2``."""
    nodes = [
        helper.make_node("Add", ["x0", "w0"], ["a"], name="add", doc_string="a remark"),
        helper.make_node("Mul", ["x1", "w1"], ["b"], name="mul"),
        helper.make_node("Relu", ["a"], ["y0"], name="relu"),
        helper.make_node("Add", ["b", "x2"], ["y1"], name="sum"),
    ]
    for node in nodes:
        node.metadata_props.add(key="origin", value="here")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x0", "x1", "x2", "y0", "y1")]
    for end in ends:
        end.metadata_props.add(key="origin", value="here")
    weights = [weight("w1", 3.0), weight("w0", 2.0)]
    graph = helper.make_graph(nodes, "two branches", ends[:3], ends[3:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_nodes_follow_those_that_their_branches_read() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        made = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1])
        return helper.make_graph([helper.make_node(op, ["b"], [f"{name}_out"])], name, [], [made])

    nodes = [
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("then", "Exp"), else_branch=branch("else", "Neg")),
        helper.make_node("Abs", ["a"], ["b"]),
        helper.make_node("Relu", ["x"], ["a"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "z")]
    given = [ends[0], helper.make_tensor_value_info("c", TensorProto.BOOL, [])]
    graph = helper.make_graph(nodes, "branches", given, ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    sort_nodes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Abs", "If", "Relu"]
    before = model.SerializeToString()
    sort_nodes(model.graph)
    assert model.SerializeToString() == before


def test_a_part_computes_what_it_did_in_the_whole(whole: onnx.ModelProto) -> None:
    graph = Graph(whole)
    part = cut(graph, {"x1": "input", "x2": "input1"}, "y1", "output")
    onnx.checker.check_model(part, full_check=True)
    assert [entry.name for entry in part.graph.input] == ["input", "input1"]
    assert [entry.name for entry in part.graph.output] == ["output"]
    assert [tensor.name for tensor in part.graph.initializer] == ["w1"]
    assert [node.name for node in part.graph.node] == ["mul", "sum"]
    x1, x2 = np.array([5.0], np.float32), np.array([1.0], np.float32)
    [y] = ReferenceEvaluator(part).run(None, {"input": x1, "input1": x2})
    assert y.tolist() == [16.0]


def test_a_part_has_the_versions_of_the_whole_and_none_of_its_traces(whole: onnx.ModelProto) -> None:
    before = whole.SerializeToString(deterministic=True)
    part = cut(Graph(whole), {"x0": "input"}, "y0", "output")
    assert (part.ir_version, part.opset_import[0].version, part.producer_name) == (9, 18, "hwnas")
    assert b"here" not in part.SerializeToString()
    assert b"remark" not in part.SerializeToString()
    assert whole.SerializeToString(deterministic=True) == before


def test_a_node_is_added_under_other_names(whole: onnx.ModelProto) -> None:
    node = Graph(whole).nodes[0]
    graph = onnx.GraphProto(name="g")
    copy = add_node(graph, node, ["u", "v"], ["w"])
    assert copy.op_type == "Add"
    copy.name = "other"
    assert [(n.name, list(n.input), list(n.output)) for n in graph.node] == [("other", ["u", "v"], ["w"])]
    assert (node.proto.name, list(node.proto.input)) == ("add", ["x0", "w0"])


def test_a_copy_is_free_to_be_changed(whole: onnx.ModelProto) -> None:
    copy = copied(whole)
    assert copy == whole
    copy.graph.node[0].name = "changed"
    assert whole.graph.node[0].name == "add"


def test_a_model_has_the_versions_of_another(whole: onnx.ModelProto) -> None:
    model = model_of(onnx.GraphProto(name="g"), whole)
    assert (model.ir_version, model.opset_import[0].version, model.graph.name) == (9, 18, "g")
