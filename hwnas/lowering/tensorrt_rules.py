"""TensorRT's requirements on an ONNX graph, checked without TensorRT and without a GPU.

The rules are those of strongly typed networks and of explicit quantisation, as TensorRT 10 and 11 document them
("Working with Quantized Types", "Strong Typing", the operator list of its ONNX parser) and as its parser checks them.
The builder may still reject a graph that passes, e.g. if the GPU lacks a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from hwnas.errors import GraphError
from hwnas.graphs import Graph, Node
from hwnas.lowering.operators import OPERATORS

OPSETS = range(9, 25)  # 9 to 24: supported by both TensorRT 10.15 and 11
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
_POOLS = {"MaxPool", "AveragePool"}


def check_tensorrt(model: onnx.ModelProto) -> None:
    """Check that TensorRT accepts a graph as a strongly typed network.

    Raises:
        GraphError: there are violations; the message lists each with its node and the reason.
    """
    found = list(violations(model))
    if found:
        raise GraphError(f"TensorRT would reject this graph for {len(found)} reasons:\n- " + "\n- ".join(found))


def violations(model: onnx.ModelProto) -> Iterator[str]:
    """Violations of TensorRT's rules in a graph, one line each."""
    view = _View(model)
    yield from _of_the_model(Graph(model))
    if view.failure:
        yield f"the graph: its shapes cannot be inferred: {view.failure}"
    for node in view.graph.nodes:
        yield from (f"{node.op_type} {node.label}: {reason}" for reason in _of_a_node(node, view))


class _View:
    """A graph with the types and shapes of its values."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.failure = ""
        try:
            self.graph = Graph(onnx.shape_inference.infer_shapes(model))
        except onnx.shape_inference.InferenceError as error:
            self.failure, self.graph = str(error), Graph(model)
        # Propagated from the inputs, so that they are known even if shape inference fails.
        given = (*self.graph.initializers, *self.graph.inputs)
        self.types = {name: self.graph.types[name] for name in given}
        for node in self.graph.nodes:
            self.types |= dict.fromkeys(node.outputs, self._type(node))

    def _type(self, node: Node) -> int:
        """The type of a node's outputs."""
        if node.op_type == "Cast":
            return int(node.attribute("to", TensorProto.FLOAT))
        if node.op_type == "Constant":
            return int(node.attribute("value", TensorProto()).data_type)
        if node.op_type == "QuantizeLinear":
            return self.types.get(node.inputs[2], 0) if len(node.inputs) > 2 else int(TensorProto.UINT8)
        if node.op_type in ("Shape", "Size", "ArgMax", "ArgMin", "NonZero"):
            return int(TensorProto.INT64)
        source = node.inputs[1] if node.op_type == "DequantizeLinear" else node.inputs[0] if node.inputs else ""
        return self.types.get(source, 0)

    def constant(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
        """The values of an initializer or a Constant, widened; None for computed values."""
        found = self.graph.constant(name)
        return None if found is None else np.asarray(found, np.float64)

    def is_weight(self, name: str) -> bool:
        """Whether a value is a constant, possibly through Q/DQ."""
        node = self.graph.producer(name)
        if node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return self.is_weight(node.inputs[0])
        return name in self.graph.initializers or (node is not None and node.op_type == "Constant")


def _of_the_model(graph: Graph) -> Iterator[str]:
    if graph.opset not in OPSETS:
        yield f"the graph: opset is {graph.opset}; TensorRT's parser supports {OPSETS.start} to {OPSETS.stop - 1}"
    if graph.model.functions:
        yield "the graph: it contains functions; inline them"
    if graph.model.graph.sparse_initializer:
        yield "the graph: it contains sparse weights; store them dense"
    for name, tensor in graph.initializers.items():
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f"initialiser {name}: its data is in another file; store it in the graph"
        if tensor.data_type == TensorProto.DOUBLE:
            yield f"initialiser {name}: is in double, which TensorRT computes in float32; store it in float32"
    for what, entries in (("input", graph.inputs), ("output", graph.outputs)):
        for name in entries:
            if graph.types[name] not in _FLOATS:
                yield f"{what} {name}: is in {_name(graph.types[name])}; images and logits must be in float"
            if 0 in graph.static_shapes.get(name, (0,)):
                yield f"{what} {name}: its shape is not static; give every axis a size"


def _of_a_node(node: Node, view: _View) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"has the domain {node.domain!r}, which only a plugin could run"
        return
    if node.op_type in _FLOW or any(a.HasField("g") or a.graphs for a in node.proto.attribute):
        yield "is control flow; a deployed network must be one graph"
        return
    if node.op_type not in OPERATORS:
        yield "is not among the operators that are known to run in fp32, fp16 and bf16"
        return
    yield from _types(node, view)
    if node.op_type == "QuantizeLinear":
        yield from _pair(node, view)
        yield from _quantised(node, view)
    elif node.op_type == "DequantizeLinear":
        yield from _dequantised(node, view)
        yield from _quantised(node, view)
    elif node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        yield from _layer(node, view)
    elif node.op_type in _POOLS:
        yield from _pool(node, view)
    elif node.op_type.startswith("Reduce") and any(
        name not in view.graph.initializers for name in filter(None, node.inputs[1:])
    ):
        yield "its axes are computed; store them as an initialiser"


def _types(node: Node, view: _View) -> Iterator[str]:
    """ONNX's type constraints without implicit conversions: strong typing."""
    version = view.graph.opset if view.graph.opset in OPSETS else OPSETS.stop - 1
    schema = onnx.defs.get_schema(node.op_type, version)
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    seen: dict[str, tuple[str, int]] = {}
    for i, name in enumerate(node.inputs):
        kind = view.types.get(name, 0)
        if not name or not kind:
            continue
        formal = schema.inputs[min(i, len(schema.inputs) - 1)].type_str
        text = f"tensor({_name(kind)})"
        if text not in allowed.get(formal, {formal}):
            since = f"{node.op_type} of opset {schema.since_version}"
            yield f"its input {name} is in {_name(kind)}, which {since} does not support"
        first, other = seen.setdefault(formal, (name, kind))
        if other != kind and formal in allowed:
            yield (
                f"its inputs {first} and {name} are in {_name(other)} and {_name(kind)}; a strongly typed network has "
                "no implicit conversions: put a Cast before one"
            )
    if node.op_type in ("Constant", "QuantizeLinear"):
        return  # checked at their readers
    for name in filter(None, node.outputs):
        kind = view.types.get(name, 0)
        if kind and kind not in _FLOATS:
            yield f"its output {name} is in {_name(kind)}; values must be in float32, float16 or bfloat16"


def _quantised(node: Node, view: _View) -> Iterator[str]:
    """Rules for both halves of a Q/DQ pair."""
    scales = view.constant(node.inputs[1])
    if scales is None:
        yield f"its scale {node.inputs[1]} is computed; store it as an initialiser"
        return
    if not scales.size or not (np.isfinite(scales) & (scales > 0)).all():
        yield f"its scale {node.inputs[1]} is not positive and finite everywhere"
    weight = view.is_weight(node.inputs[0])
    if scales.size > 1 and not weight:
        yield f"it has {scales.size} scales; a computed value must have one"
    if scales.size > 1 and weight:
        yield from _axis(node, view, scales.size)
    if len(node.inputs) < 3 or not node.inputs[2]:
        if node.op_type == "QuantizeLinear":
            yield "it has no zero-point, which makes it uint8; add one in int8"
        return
    kind = view.types.get(node.inputs[2], 0)
    if kind not in (TensorProto.INT8, TensorProto.INT32):  # int32 is reported for the value itself
        yield f"its zero-point {node.inputs[2]} is in {_name(kind)}; TensorRT quantises to int8"
    zeros = view.constant(node.inputs[2])
    if zeros is None or zeros.any():
        yield f"its zero-point {node.inputs[2]} is not 0; TensorRT quantises symmetrically"
    elif zeros.size != scales.size:
        yield f"it has {scales.size} scales and {zeros.size} zero-points"


def _pair(node: Node, view: _View) -> Iterator[str]:
    """The only readers of a QuantizeLinear are DequantizeLinear nodes with its scale and zero-point."""
    name = node.outputs[0]
    readers = view.graph.consumers(name)
    if name in view.graph.outputs or not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
        yield f"its output {name} is read by another node than a DequantizeLinear"
        return
    for reader in readers:
        mine, its = view.constant(node.inputs[1]), view.constant(reader.inputs[1])
        if mine is not None and its is not None and not np.array_equal(mine.ravel(), its.ravel()):
            yield f"its scale differs from that of {reader.label}, its DequantizeLinear"
        if view.types.get(node.inputs[1]) != view.types.get(reader.inputs[1]):
            yield f"its scale has another type than that of {reader.label}"


def _dequantised(node: Node, view: _View) -> Iterator[str]:
    kind = view.types.get(node.inputs[0], 0)
    if kind == TensorProto.INT32:
        yield f"its input {node.inputs[0]} is in int32, as for a quantised bias; TensorRT requires float biases"
    elif kind != TensorProto.INT8:
        yield f"its input {node.inputs[0]} is in {_name(kind)}; TensorRT dequantises int8"
    maker = view.graph.producer(node.inputs[0])
    if node.inputs[0] not in view.graph.initializers and (
        maker is None or maker.op_type not in ("QuantizeLinear", "Constant")
    ):
        yield f"its input {node.inputs[0]} comes neither from a QuantizeLinear nor from an int8 initialiser"


def _axis(node: Node, view: _View, scales: int) -> Iterator[str]:
    """Scales of weights are per output channel of the layer that reads them."""
    shape = view.graph.shapes.get(node.inputs[0], ())
    axis = node.attribute("axis", 1) % max(1, len(shape))
    if not shape or shape[axis] != scales:
        yield f"it has {scales} scales for an axis of {shape[axis] if shape else 'unknown size'}"
        return
    name = node.outputs[0]
    while (readers := view.graph.consumers(name)) and readers[0].op_type == "DequantizeLinear":
        name = readers[0].outputs[0]
    for reader in readers:
        if reader.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            wanted = _output_axis(reader, len(shape))
            if axis != wanted:
                yield f"its scales are along axis {axis}; the output channels of {reader.op_type} are axis {wanted}"


def _output_axis(layer: Node, rank: int) -> int:
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1
    return rank - 2 if layer.op_type == "Gemm" and layer.attribute("transB", 0) else rank - 1


def _layer(node: Node, view: _View) -> Iterator[str]:
    value, weight = node.inputs[:2]
    makers = [view.graph.producer(name) for name in (value, weight)]
    quantised = [maker is not None and maker.op_type == "DequantizeLinear" for maker in makers]
    if view.is_weight(weight) and quantised[0] != quantised[1]:
        which = ("weights", "input") if quantised[1] else ("input", "weights")
        yield f"its {which[0]} are int8 and its {which[1]} float; int8 requires both"
    if node.op_type.startswith("Conv"):
        shape = view.graph.shapes.get(weight)
        if shape is not None and len(shape) not in (4, 5):
            yield f"its weights have {len(shape)} axes; TensorRT supports convolutions in two or three dimensions"
        if len(node.inputs) > 2 and node.inputs[2] and not view.is_weight(node.inputs[2]):
            yield f"its bias {node.inputs[2]} is computed; store it as an initialiser"


def _pool(node: Node, view: _View) -> Iterator[str]:
    if len(node.outputs) > 1 and node.outputs[1]:
        yield "it outputs the indices of its maxima, which TensorRT does not support"
    dilations = list(node.attribute("dilations", list[int]()))
    if dilations != [1] * len(dilations):
        yield f"its dilations are {dilations}; TensorRT does not support dilated pooling"
    shape = view.graph.shapes.get(node.inputs[0])
    if shape is not None and len(shape) not in (4, 5):
        yield "TensorRT supports pooling in two or three dimensions"


def _name(kind: int) -> str:
    """The type as written in ONNX's type constraints."""
    return str(TensorProto.DataType.Name(kind)).lower()
