"""What the nodes of an ONNX file compute beyond what a profile of ONNX Runtime says of them.

ONNX Runtime brings protobuf, but not the package onnx, and a machine that is measured may have the first only. So the
few messages that are read are declared here, with the field numbers of ``onnx.proto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_Shapes = dict[str, tuple[int, ...]]
_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "hwnas.onnx"
# message -> field -> (number, type, repeated); a type that is a text is a message
_MESSAGES: dict[str, dict[str, tuple[int, Any, bool]]] = {
    "Attribute": {
        "name": (1, _FIELD.TYPE_STRING, False),
        "i": (3, _FIELD.TYPE_INT64, False),
        "s": (4, _FIELD.TYPE_BYTES, False),
        "g": (6, "Graph", False),
        "ints": (8, _FIELD.TYPE_INT64, True),
    },
    "Tensor": {
        "dims": (1, _FIELD.TYPE_INT64, True),
        "name": (8, _FIELD.TYPE_STRING, False),
    },
    "Node": {
        "input": (1, _FIELD.TYPE_STRING, True),
        "name": (3, _FIELD.TYPE_STRING, False),
        "op_type": (4, _FIELD.TYPE_STRING, False),
        "attribute": (5, "Attribute", True),
        "domain": (7, _FIELD.TYPE_STRING, False),
    },
    "Graph": {"node": (1, "Node", True), "initializer": (5, "Tensor", True)},
    "Model": {"graph": (7, "Graph", False)},
}
# Attributes that change the time of a kernel and that its shapes do not show. (Those of a convolution show its kernel.)
_TELLING = ("activation", "axis", "mode", "perm", "transA", "transB", "transBatchA", "transBatchB")
_OF_POOLS = ("kernel_shape", "channels_last")
_BLOCKED = ("com.microsoft.nchwc", "layout=blocked")
_USUAL = {(name, "0") for name in (*_TELLING, *_OF_POOLS) if name.startswith(("trans", "channels"))}


class NodeFacts(NamedTuple):
    """What a node of a graph computes.

    Attributes:
        variant: its telling attributes, such as ``activation=Relu`` or ``perm=0.2.1.3``; empty if it has none. Kernels
            of ONNX Runtime for channels in blocks of a register say ``layout=blocked``: those of the same operators
            with other numbers of channels took up to 25 times as long.
        weights: shapes of the constants that it reads, of two axes or more; not of its first input, which a profile
            always reports.
    """

    variant: str
    weights: tuple[tuple[int, ...], ...]


def node_facts(file: Path) -> dict[str, NodeFacts]:
    """Name of a node -> its facts, also of the nodes in branches and loops.

    Args:
        file: an ONNX model.
    """
    model: Any = _model_class()()
    model.ParseFromString(file.read_bytes())
    found = dict[str, NodeFacts]()
    graphs: list[tuple[_Graph, _Shapes]] = [(model.graph, {})]
    for graph, outer in graphs:  # grows meanwhile
        shapes = {**outer, **{entry.name: tuple(entry.dims) for entry in graph.initializer}}
        for node in graph.node:
            weights = tuple(shapes[name] for name in node.input[1:] if len(shapes.get(name, ())) > 1)
            found[node.name] = NodeFacts(_variant(node), weights)
            graphs += [(attribute.g, shapes) for attribute in node.attribute if attribute.HasField("g")]
    return found


class _Attribute(Protocol):
    name: str
    i: int
    s: bytes
    g: _Graph
    ints: Sequence[int]

    def HasField(self, name: str) -> bool: ...  # noqa: N802


class _Node(Protocol):
    name: str
    input: Sequence[str]
    op_type: str
    attribute: Sequence[_Attribute]
    domain: str


class _Tensor(Protocol):
    name: str
    dims: Sequence[int]


class _Graph(Protocol):
    node: Sequence[_Node]
    initializer: Sequence[_Tensor]


def _variant(node: _Node) -> str:
    telling = (*_TELLING, *_OF_POOLS) if "Pool" in node.op_type else _TELLING
    found = {attribute.name: _text(attribute) for attribute in node.attribute if attribute.name in telling}
    parts = [f"{name}={found[name]}" for name in sorted(found) if (name, found[name]) not in _USUAL]
    domain, layout = _BLOCKED
    return ",".join([*parts, layout] if node.domain == domain else parts)


def _text(attribute: _Attribute) -> str:
    if attribute.ints:
        return ".".join(map(str, attribute.ints))
    return attribute.s.decode(errors="replace") if attribute.s else str(attribute.i)


def _model_class() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="hwnas/onnx_nodes.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            entry = message.field.add(
                name=field, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            )
            entry.type = _FIELD.TYPE_MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                entry.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[Message] = GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))
    return found
