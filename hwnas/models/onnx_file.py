"""ONNX files of users: read with the weights beside them, and what they may contain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.inliner import inline_local_functions

from hwnas.errors import ModelError
from hwnas.files import reason_of
from hwnas.graphs import Graph, Node
from hwnas.lowering.serialized import MAX_BYTES

OLDEST = 9
_DOMAINS = ("", "ai.onnx", "com.microsoft")
# Their outputs, or which nodes run, depend on values.
_LOOPS = ("Loop", "Scan", "SequenceMap")
_DATA_DEPENDENT = ("NonZero", "Unique", "Compress", "NonMaxSuppression", "StringNormalizer")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


def read_onnx(path: Path) -> onnx.ModelProto:
    """A model from a file, with the weights of other files inside.

    Raises:
        ModelError: it cannot be read, is older than opset 9, or has loops, shapes that depend on values, random
            numbers, or operators of an unknown domain; the message names the node.
    """
    return checked_model(_load(path), path.name)


def checked_model(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A model, if hwnas takes what it contains; local functions are inlined.

    Raises:
        ModelError: as `read_onnx`.
    """
    if not model.graph.node:
        raise ModelError(f"{name} has no nodes")
    if model.functions:
        model = inline_local_functions(model)
    graph = Graph(model)
    if graph.opset < OLDEST:
        raise ModelError(f"{name} has opset {graph.opset}; hwnas reads opset {OLDEST} and later. Export it again")
    stored = graph.initializers.keys()
    left = [entry for entry in model.graph.input if entry.name not in stored]  # before IR 4, weights are inputs, too
    if len(left) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(left)
        model.ir_version = max(model.ir_version, 4)
    if not left or not model.graph.output:
        raise ModelError(f"{name} has {len(left)} inputs and {len(model.graph.output)} outputs; it needs one of each")
    for mistake in _mistakes(Graph(model)):
        raise ModelError(f"{name} is not taken: {mistake}")
    return named(model)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose nodes all have names, by which layers are found; those without one get it, in place."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def branches(model: onnx.ModelProto) -> list[str]:
    """Sentences about the branches of a model, which is taken as it is: latencies are of the branch that is run."""
    return [
        f"The node {node.label!r} is a branch (If): figures are of the side that the inputs select (--inputs)."
        for node in Graph(model).nodes
        if node.op_type == "If"
    ]


def _mistakes(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        what = f"the node {node.label!r} ({node.op_type})"
        if node.domain not in _DOMAINS:
            yield f"{what} is of the domain {node.domain!r}, whose operators no runtime here has"
        elif node.op_type in _LOOPS or (_has_graph(node) and node.op_type != "If"):
            yield f"{what} is a loop: how often its nodes run depends on values. Export the network without it"
        elif node.op_type in _DATA_DEPENDENT:
            yield (
                f"the shape of the output of {what} depends on values, so its latency does, too. Leave it out of the "
                "export, and run it outside of the model"
            )
        elif node.op_type in _RANDOM:
            yield f"{what} draws random numbers: two runs differ, so its outputs cannot be compared"


def _has_graph(node: Node) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.proto.attribute)


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(f"{path} {what}; a model is a file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(
                f"{path} has {path.stat().st_size:,} bytes, and protobuf reads at most {MAX_BYTES:,}: save the weights "
                "in a file beside it (onnx.save_model(…, save_as_external_data=True))"
            )
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {reason_of(error)}") from error
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX file, or is truncated: {error}") from error
    outside = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    for tensor in outside:
        facts = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / facts.get("location", "")
        if not file.is_file():
            raise ModelError(
                f"the weight {tensor.name!r} of {path} is in the file {facts.get('location')!r}, which is not beside it"
            )
    try:
        if outside:
            onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx raises several kinds for names that leave the folder, and short files
        raise ModelError(f"cannot read the weights of {path}: {str(error).splitlines()[0]}") from error
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
