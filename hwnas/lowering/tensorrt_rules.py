"""What TensorRT asks of an ONNX graph, as a check that needs neither TensorRT nor a GPU.

The rules are those of strongly typed networks and of explicit quantisation, as TensorRT 10 and 11 document them
("Working with Quantized Types", "Strong Typing", the operator list of its ONNX parser) and as its parser asserts them.
A graph that passes may still be refused for a reason that only the builder knows, such as a kernel that a GPU lacks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from hwnas.errors import GraphError
from hwnas.lowering.operators import OPERATORS, attribute

OPSETS = range(9, 25)  # 9 to 24: what TensorRT 10.15 and 11 both take
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
_POOLS = {"MaxPool", "AveragePool"}


def check_tensorrt(model: onnx.ModelProto) -> None:
    """Check that TensorRT can take a graph as a strongly typed network.

    Raises:
        GraphError: lists every violation with its node and the reason.
    """
    found = list(violations(model))
    if found:
        raise GraphError(f"TensorRT would refuse this graph for {len(found)} reasons:\n- " + "\n- ".join(found))


def violations(model: onnx.ModelProto) -> Iterator[str]:
    """What in a graph is against TensorRT's rules, a line each."""
    yield from _of_the_model(model)
    view = _View(model)
    if view.failure:
        yield f"the graph: its shapes cannot be inferred: {view.failure}"
    for node in model.graph.node:
        name = f"{node.op_type} {node.name or node.output[0]}"
        yield from (f"{name}: {reason}" for reason in _of_a_node(node, view))


class _View:
    """A graph with what each value is: its type, its shape, who makes it and who reads it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.made = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in filter(None, node.input):
                self.readers.setdefault(name, []).append(node)
        self.results = {entry.name for entry in model.graph.output}
        self.types = {tensor.name: int(tensor.data_type) for tensor in model.graph.initializer}
        self.types |= {entry.name: int(entry.type.tensor_type.elem_type) for entry in model.graph.input}
        for node in model.graph.node:
            self.types |= dict.fromkeys(node.output, self._type(node))
        self.failure = ""
        try:
            inferred = onnx.shape_inference.infer_shapes(model).graph
        except onnx.shape_inference.InferenceError as error:
            self.failure, inferred = str(error), model.graph
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for entry in (*inferred.input, *inferred.value_info, *inferred.output):
            if entry.name not in self.shapes and entry.type.tensor_type.HasField("shape"):
                self.shapes[entry.name] = tuple(d.dim_value for d in entry.type.tensor_type.shape.dim)

    def _type(self, node: NodeProto) -> int:
        """The type of what a node makes."""
        if node.op_type == "Cast":
            return int(attribute(node, "to", TensorProto.FLOAT))
        if node.op_type == "Constant":
            return int(attribute(node, "value", TensorProto()).data_type)
        if node.op_type == "QuantizeLinear":
            return self.types.get(node.input[2], 0) if len(node.input) > 2 else int(TensorProto.UINT8)
        if node.op_type in ("Shape", "Size", "ArgMax", "ArgMin", "NonZero"):
            return int(TensorProto.INT64)
        source = node.input[1] if node.op_type == "DequantizeLinear" else node.input[0] if node.input else ""
        return self.types.get(source, 0)

    def constant(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
        """The values of an initialiser or a Constant, widened; None for what is computed."""
        if name in self.stored:
            return np.asarray(numpy_helper.to_array(self.stored[name]), np.float64)
        node = self.made.get(name)
        if node is None or node.op_type != "Constant":
            return None
        return np.asarray(numpy_helper.to_array(attribute(node, "value", TensorProto())), np.float64)

    def is_weight(self, name: str) -> bool:
        """Whether a value is a constant, perhaps through Q/DQ."""
        node = self.made.get(name)
        if node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return self.is_weight(node.input[0])
        return name in self.stored or (node is not None and node.op_type == "Constant")


def _of_the_model(model: onnx.ModelProto) -> Iterator[str]:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    version = opsets.pop("", opsets.pop("ai.onnx", 0))
    if version not in OPSETS:
        yield f"the graph: opset is {version}; TensorRT's parser takes {OPSETS.start} to {OPSETS.stop - 1}"
    if model.functions:
        yield "the graph: it holds functions of its own; write their nodes into the graph"
    if model.graph.sparse_initializer:
        yield "the graph: it holds sparse weights; store them dense"
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f"initialiser {tensor.name}: its data lies in another file; store it in the graph"
        if tensor.data_type == TensorProto.DOUBLE:
            yield f"initialiser {tensor.name}: is in double, which TensorRT computes in float32; store it in float32"
    for what, entries in (("input", model.graph.input), ("output", model.graph.output)):
        for entry in entries:
            kind = entry.type.tensor_type
            if kind.elem_type not in _FLOATS:
                yield f"{what} {entry.name}: is in {_name(kind.elem_type)}; images and logits are in float"
            if not kind.HasField("shape") or any(
                not d.HasField("dim_value") or d.dim_value < 1 for d in kind.shape.dim
            ):
                yield f"{what} {entry.name}: its shape is not static; give every axis a size"


def _of_a_node(node: NodeProto, view: _View) -> Iterator[str]:
    if node.domain not in ("", "ai.onnx"):
        yield f"is of the domain {node.domain!r}, which only a plugin could run"
        return
    if node.op_type in _FLOW or any(a.HasField("g") or a.graphs for a in node.attribute):
        yield "is control flow; a deployed network is one graph"
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
    elif node.op_type.startswith("Reduce") and any(name not in view.stored for name in filter(None, node.input[1:])):
        yield "its axes are computed; store them as an initialiser"


def _types(node: NodeProto, view: _View) -> Iterator[str]:
    """ONNX's own type constraints, with nothing converted in silence: that is what strong typing means."""
    version = view.opset if view.opset in OPSETS else OPSETS.stop - 1
    schema = onnx.defs.get_schema(node.op_type, version)
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    seen: dict[str, tuple[str, int]] = {}
    for i, name in enumerate(node.input):
        kind = view.types.get(name, 0)
        if not name or not kind:
            continue
        formal = schema.inputs[min(i, len(schema.inputs) - 1)].type_str
        text = f"tensor({_name(kind)})"
        if text not in allowed.get(formal, {formal}):
            since = f"{node.op_type} of opset {schema.since_version}"
            yield f"its input {name} is in {_name(kind)}, which {since} does not take"
        first, other = seen.setdefault(formal, (name, kind))
        if other != kind and formal in allowed:
            yield (
                f"its inputs {first} and {name} are in {_name(other)} and {_name(kind)}; a strongly typed network "
                "converts nothing by itself: put a Cast before one"
            )
    if node.op_type in ("Constant", "QuantizeLinear"):
        return  # judged by who reads them
    for name in filter(None, node.output):
        kind = view.types.get(name, 0)
        if kind and kind not in _FLOATS:
            yield f"its output {name} is in {_name(kind)}; values are in float32, float16 or bfloat16"


def _quantised(node: NodeProto, view: _View) -> Iterator[str]:
    """Rules that both halves of a pair keep."""
    scales = view.constant(node.input[1])
    if scales is None:
        yield f"its scale {node.input[1]} is computed; store it as an initialiser"
        return
    if not scales.size or not (np.isfinite(scales) & (scales > 0)).all():
        yield f"its scale {node.input[1]} is not positive and finite everywhere"
    weight = view.is_weight(node.input[0])
    if scales.size > 1 and not weight:
        yield f"it has {scales.size} scales; a value that is computed has one"
    if scales.size > 1 and weight:
        yield from _axis(node, view, scales.size)
    if len(node.input) < 3 or not node.input[2]:
        if node.op_type == "QuantizeLinear":
            yield "it has no zero-point, which makes it uint8; give one of int8"
        return
    kind = view.types.get(node.input[2], 0)
    if kind not in (TensorProto.INT8, TensorProto.INT32):  # int32 shows in the value itself
        yield f"its zero-point {node.input[2]} is in {_name(kind)}; TensorRT quantises to int8"
    zeros = view.constant(node.input[2])
    if zeros is None or zeros.any():
        yield f"its zero-point {node.input[2]} is not 0; TensorRT quantises symmetrically"
    elif zeros.size != scales.size:
        yield f"it has {scales.size} scales and {zeros.size} zero-points"


def _pair(node: NodeProto, view: _View) -> Iterator[str]:
    """A QuantizeLinear is followed by nothing but DequantizeLinear nodes with its numbers."""
    name = node.output[0]
    readers = view.readers.get(name, [])
    if name in view.results or not readers or any(reader.op_type != "DequantizeLinear" for reader in readers):
        yield f"its output {name} is read by something else than a DequantizeLinear"
        return
    for reader in readers:
        mine, its = view.constant(node.input[1]), view.constant(reader.input[1])
        if mine is not None and its is not None and not np.array_equal(mine.ravel(), its.ravel()):
            yield f"its scale is not that of {reader.name or reader.output[0]}, which makes a pair with it"
        if view.types.get(node.input[1]) != view.types.get(reader.input[1]):
            yield f"its scale is of another type than that of {reader.name or reader.output[0]}"


def _dequantised(node: NodeProto, view: _View) -> Iterator[str]:
    kind = view.types.get(node.input[0], 0)
    if kind == TensorProto.INT32:
        yield f"its input {node.input[0]} is in int32, as of a quantised bias; TensorRT takes biases in float"
    elif kind != TensorProto.INT8:
        yield f"its input {node.input[0]} is in {_name(kind)}; TensorRT dequantises int8"
    maker = view.made.get(node.input[0])
    if node.input[0] not in view.stored and (maker is None or maker.op_type not in ("QuantizeLinear", "Constant")):
        yield f"its input {node.input[0]} comes neither from a QuantizeLinear nor from an int8 initialiser"


def _axis(node: NodeProto, view: _View, scales: int) -> Iterator[str]:
    """Scales of weights lie along the output channels of the layer that reads them."""
    shape = view.shapes.get(node.input[0], ())
    axis = attribute(node, "axis", 1) % max(1, len(shape))
    if not shape or shape[axis] != scales:
        yield f"it has {scales} scales for an axis of {shape[axis] if shape else 'unknown size'}"
        return
    name = node.output[0]
    while (readers := view.readers.get(name, [])) and readers[0].op_type == "DequantizeLinear":
        name = readers[0].output[0]
    for reader in readers:
        if reader.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            wanted = _output_axis(reader, len(shape))
            if axis != wanted:
                yield f"its scales lie along axis {axis}; the output channels of {reader.op_type} are axis {wanted}"


def _output_axis(layer: NodeProto, rank: int) -> int:
    if layer.op_type == "Conv":
        return 0
    if layer.op_type == "ConvTranspose":
        return 1
    return rank - 2 if layer.op_type == "Gemm" and attribute(layer, "transB", 0) else rank - 1


def _layer(node: NodeProto, view: _View) -> Iterator[str]:
    value, weight = node.input[:2]
    quantised = [name in view.made and view.made[name].op_type == "DequantizeLinear" for name in (value, weight)]
    if view.is_weight(weight) and quantised[0] != quantised[1]:
        which = ("weights", "input") if quantised[1] else ("input", "weights")
        yield f"its {which[0]} are int8 and its {which[1]} float; int8 takes both"
    if node.op_type.startswith("Conv"):
        if len(view.shapes.get(weight, (0,) * 4)) not in (4, 5):
            yield f"its weights have {len(view.shapes[weight])} axes; TensorRT convolves in two or three dimensions"
        if len(node.input) > 2 and node.input[2] and not view.is_weight(node.input[2]):
            yield f"its bias {node.input[2]} is computed; store it as an initialiser"


def _pool(node: NodeProto, view: _View) -> Iterator[str]:
    if len(node.output) > 1 and node.output[1]:
        yield "it gives the indices of its maxima, which TensorRT does not"
    dilations = list(attribute(node, "dilations", list[int]()))
    if dilations != [1] * len(dilations):
        yield f"its dilations are {dilations}; TensorRT pools without"
    if len(view.shapes.get(node.input[0], (0,) * 4)) not in (4, 5):
        yield "TensorRT pools in two or three dimensions"


def _name(kind: int) -> str:
    """As ONNX's type constraints spell it."""
    return str(TensorProto.DataType.Name(kind)).lower()
