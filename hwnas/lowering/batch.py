"""The batch axis of ONNX graphs: a number, or a symbol if a program takes any number of images in a run."""

from __future__ import annotations

import math

import onnx
from onnx import numpy_helper

from hwnas.errors import GraphError
from hwnas.graphs import copied
from hwnas.runner.program import BATCH


def with_any_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose batch axis, the first of its input and of its output, is symbolic.

    It has the nodes and the weights of the graph, which is the profiled one; an export with a symbolic axis may have
    others. Only reshapes that contain the number of images keep the first axis of their input instead.

    Args:
        model: a graph with static shapes, one input and one output.

    Raises:
        GraphError: another node contains the number of images.
    """
    model = copied(model)
    [given], [result] = model.graph.input, model.graph.output
    batch, classes = _axis(given).dim_value, [axis.dim_value for axis in result.type.tensor_type.shape.dim][1:]
    _axis(given).dim_param = BATCH
    for axis in result.type.tensor_type.shape.dim:
        axis.Clear()  # it is inferred from the input alone
    known = _inferred(model)
    # A reshape hides the symbol from those after it.
    # A reshape hides the symbol from those after it.
    while reshapes := [node for node in model.graph.node if _loses_the_symbol(node, known)]:
        if not all(_keep_first_axis(node, model.graph, batch, known) for node in reshapes):
            break
        known = _inferred(model)
    axes = known[result.name].type.tensor_type.shape.dim
    if [axis.dim_param or axis.dim_value for axis in axes] != [BATCH, *classes]:
        raise GraphError(
            "the network cannot take any number of images in a run: a node of its graph contains the number of images. "
            "Build the op from others that keep the first axis, or export with a fixed batch"
        )
    result.CopyFrom(known[result.name])
    return model


def fix_batch(model: onnx.ModelProto, batch: int) -> None:
    """Replace a symbolic batch axis of a graph, in place; no change to any other graph."""
    for value in (*model.graph.input, *model.graph.output):
        if _is_symbolic(value):
            _axis(value).dim_value = batch


def _inferred(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Name -> value, with its inferred shape."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}


def _loses_the_symbol(node: onnx.NodeProto, known: dict[str, onnx.ValueInfoProto]) -> bool:
    """Whether a reshape of images has an output without the symbolic axis, or with another symbol for it."""
    value = known.get(node.input[0]) if node.op_type == "Reshape" else None
    return value is not None and _axis_name(value) == BATCH and _axis_name(known[node.output[0]]) != BATCH


def _keep_first_axis(
    node: onnx.NodeProto, graph: onnx.GraphProto, batch: int, known: dict[str, onnx.ValueInfoProto]
) -> bool:
    """Let a reshape keep the first axis of its input; False if its stored shape does not begin with that axis.

    It begins with the batch, or with -1 where the other axes have as many elements as those of the input.
    """
    stored = next((tensor for tensor in graph.initializer if tensor.name == node.input[1]), None)
    shape = [] if stored is None else numpy_helper.to_array(stored).tolist()
    others = [axis.dim_value for axis in known[node.input[0]].type.tensor_type.shape.dim][1:]
    begins = shape[:1] == [batch] or (shape[:1] == [-1] and math.prod(shape[1:]) == math.prod(others))
    if stored is None or not begins or 0 in shape:
        return False
    kept = numpy_helper.to_array(stored).copy()
    kept[0] = 0
    del node.attribute[:]  # `allowzero`: without it, a 0 stands for the size of the input's axis
    if sum(stored.name in other.input for other in graph.node) == 1:
        graph.initializer.remove(stored)
    node.input[1] = f"{node.output[0]}.shape"
    graph.initializer.append(numpy_helper.from_array(kept, node.input[1]))
    return True


def _axis_name(value: onnx.ValueInfoProto) -> str:
    """Name of the first axis; empty if it has a size, or there is none."""
    return _axis(value).dim_param if value.type.tensor_type.shape.dim else ""


def _is_symbolic(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.shape.dim and _axis(value).dim_param)


def _axis(value: onnx.ValueInfoProto) -> onnx.TensorShapeProto.Dimension:
    first: onnx.TensorShapeProto.Dimension = value.type.tensor_type.shape.dim[0]
    return first
