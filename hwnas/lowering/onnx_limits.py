"""Limits on the content of untrusted ONNX files.

A network is one flat graph of standard operators that contains its weights, with all sizes known. Everything is
rejected that could read another file, run forever, or take excessive memory or time. (onnx 1.23 never finishes the
shape inference of some Einsum nodes.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

from hwnas.errors import BundleError
from hwnas.graphs import Graph, is_static
from hwnas.lowering.batch import fix_batch
from hwnas.lowering.operators import OPERATORS, too_much_work, work
from hwnas.lowering.serialized import MAX_BYTES

_NODES = 50_000
_TENSOR_BYTES = 2**32
_WIDEST = 16  # bytes of the largest element type
# Microsoft's domain has an operator that loads any named file; these two only add types that ONNX lacked.
_DOMAINS = {
    "": OPERATORS,
    "ai.onnx": OPERATORS,
    "com.microsoft": frozenset({"QuantizeLinear", "DequantizeLinear"}),
}


def check_onnx(data: bytes, name: str, batch: int = 1) -> None:
    """Check the bytes of an ONNX file before a runtime reads them.

    Args:
        data: content of the file.
        name: of the file, for messages.
        batch: images of a run, if the file's batch axis is symbolic.

    Raises:
        BundleError: it is not an ONNX graph, or contains something that no network needs.
    """
    model = parsed(data, name)
    for mistake in _mistakes(model):
        raise BundleError(f"{name} is rejected: {mistake}")
    fix_batch(model, batch)
    try:
        onnx.checker.check_model(model)
        # Sizes do not depend on the weights' values, but copying without them would take as long as reading them.
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # the checker and the inference share no base class
        raise BundleError(f"{name} is rejected: {str(error).strip().splitlines()[0]}") from error
    for mistake in _sizes(Graph(inferred)):
        raise BundleError(f"{name} is rejected: {mistake}")


def parsed(data: bytes, name: str) -> onnx.ModelProto:
    """The model in the bytes of an ONNX file.

    Raises:
        BundleError: they are too many, or not a model.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{name} has {len(data)} bytes; an ONNX file may have at most {MAX_BYTES}")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise BundleError(f"{name} is not an ONNX file, or is truncated: {error}") from error
    return model


def _mistakes(model: onnx.ModelProto) -> Iterator[str]:
    """Content of the file's messages that no network needs and that the view of a graph does not show."""
    graph = model.graph
    if len(graph.node) > _NODES or len(graph.initializer) > _NODES:
        yield f"{len(graph.node)} nodes and {len(graph.initializer)} weights; at most {_NODES} of each are accepted"
    if not graph.node:
        yield "it has no nodes"
    if model.functions or graph.sparse_initializer or model.training_info:
        yield "it has functions, sparse weights or training information, which no network needs"
    if len(graph.input) != 1 or len(graph.output) != 1:
        yield f"it has {len(graph.input)} inputs and {len(graph.output)} outputs; a network must have one of each"
    names: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in names:
            yield f"two weights have the name {tensor.name[:80]!r}"
        names.add(tensor.name)
        yield from weight_mistakes(tensor)
    for node in graph.node:
        yield from _node(node)


def _node(node: onnx.NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            yield f"{node.op_type!r} contains a graph; a network must be one flat graph"
        for tensor in (attribute.t, *attribute.tensors):
            yield from weight_mistakes(tensor)
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            yield f"{node.op_type!r} contains a sparse tensor, which no network needs"
    if node.op_type not in _DOMAINS.get(node.domain, frozenset()):
        yield f"the operator {node.op_type[:80]!r} of {node.domain[:80] or 'ONNX'!r} is not allowed"


def weight_mistakes(tensor: onnx.TensorProto) -> Iterator[str]:
    """What is wrong with a stored tensor: it is in another file, or its size is not that of a weight."""
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        where = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        yield f"the weight {tensor.name[:80]!r} is in another file, {where[:200]!r}; the graph must contain it"
    elif tensor.HasField("segment") or min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _TENSOR_BYTES:
        yield f"the weight {tensor.name[:80]!r} has the size {list(tensor.dims)[:8]}, or is a segment"


def _sizes(graph: Graph) -> Iterator[str]:
    """Values of unknown or excessive size, and excessive work."""
    for name, shape in graph.declared_shapes():
        if is_static(shape) and math.prod(shape) * _WIDEST > _TENSOR_BYTES:
            yield f"the value {name[:80]!r} has the size {list(shape[:8])}, more than any network needs"
    for node in graph.nodes:
        for name in filter(None, node.outputs):
            if name not in graph.static_shapes:
                yield f"the size of {name[:80]!r}, an output of {node.op_type!r}, is not static"
    if mistake := too_much_work(sum(work(node, graph.static_shapes) for node in graph.nodes)):
        yield mistake
