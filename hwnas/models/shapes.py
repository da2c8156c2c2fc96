"""Shapes of a model's inputs: what the user gives, and what the graph leaves open."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import onnx
from onnx import TensorProto

from hwnas.errors import InvalidValue, ModelError
from hwnas.graphs import Graph, copied
from hwnas.runner.signature import Signature, Value

Shapes: TypeAlias = "Mapping[str, Sequence[int] | int]"
_TEXT = re.compile(r"(?P<name>.+)=(?P<axes>\d+(?:x\d+)*)")
_MOST = 2**31
# Element types of inputs and outputs, by numpy's names.
DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.INT16: "int16",
    TensorProto.INT8: "int8",
    TensorProto.UINT64: "uint64",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT8: "uint8",
    TensorProto.BOOL: "bool",
}


def parse_shapes(given: Shapes | Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name of an input or of an axis -> sizes.

    Args:
        given: a mapping, or texts ``x=1x3x224x224``; ``x=`` alone is a scalar's.

    Raises:
        InvalidValue: a text has another form, or a size is not positive.
    """
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(given, Mapping):
        for name, sizes in given.items():
            found[name] = (sizes,) if isinstance(sizes, int) else tuple(map(int, sizes))
    else:
        for text in given:
            if not (match := _TEXT.fullmatch(text)):
                raise InvalidValue(
                    f"--shape {text!r} should be the name of an input and its sizes, x=1x3x224x224, or the name of a "
                    "symbolic axis and its size, width=320"
                )
            found[match["name"]] = tuple(map(int, match["axes"].split("x")))
    for name, sizes in found.items():
        if min(sizes, default=1) < 1 or math.prod(sizes) >= _MOST:
            raise InvalidValue(f"--shape {name}={'x'.join(map(str, sizes))}: each size must be positive, and not huge")
    return found


def fixed(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], name: str
) -> tuple[onnx.ModelProto, list[str]]:
    """A model whose inputs have static shapes, and what was assumed.

    Shapes of all other values are inferred again. An open first axis is 1: it is the batch in all common exports, which
    the sentence in the result says.

    Raises:
        InvalidValue: a name is of no input and no axis, or a shape contradicts the model.
        ModelError: an axis stays open.
    """
    model = copied(model)
    inputs = model.graph.input
    symbols = {symbol for entry in inputs for axis in _axes(entry) if (symbol := _symbol(axis))}
    names = [entry.name for entry in inputs]
    for unknown in sorted(shapes.keys() - set(names) - symbols):
        axes = f", and the symbolic axes {', '.join(sorted(symbols))}" if symbols else ""
        raise InvalidValue(f"--shape {unknown}=…: {name} has the inputs {', '.join(names)}{axes}")
    notes: list[str] = []
    bound: dict[str, int] = {}
    for entry in inputs:
        if entry.name in shapes:
            _set(entry, shapes[entry.name], name, bound)
    for entry in inputs:
        for position, axis in enumerate(_axes(entry)):
            if axis.dim_value > 0:  # some exporters write -1 for an open axis
                continue
            symbol = _symbol(axis)
            if symbol and (symbol in bound or symbol in shapes):
                axis.dim_value = bound.get(symbol) or shapes[symbol][0]
            elif position == 0:
                axis.dim_value = 1
                notes.append(f"The first axis of {entry.name}{f', {symbol},' if symbol else ''} is taken as 1.")
    left = [entry for entry in inputs if any(axis.dim_value < 1 for axis in _axes(entry))]
    if left:
        example = " ".join(f"--shape {entry.name}={'x'.join(map(_size_text, _axes(entry)))}" for entry in left)
        raise ModelError(f"{name} has inputs with open axes: give each a size, {example}")
    return _inferred(model, name), notes


def signature_of(model: onnx.ModelProto, name: str) -> Signature:
    """The inputs and outputs of a model with static inputs.

    Raises:
        ModelError: one is not a tensor of numbers.
    """
    graph = Graph(model)
    for entry in (*model.graph.input, *model.graph.output):
        kind = entry.type.WhichOneof("value")
        element = entry.type.tensor_type.elem_type
        if kind != "tensor_type" or element not in DTYPES:
            found = TensorProto.DataType.Name(element) if kind == "tensor_type" else str(kind).removesuffix("_type")
            raise ModelError(f"{entry.name} of {name} is {found}; inputs and outputs should be tensors of numbers")

    def values(names: Sequence[str]) -> tuple[Value, ...]:
        return tuple(Value(each, graph.shapes.get(each, (None,)), DTYPES[graph.types[each]]) for each in names)

    return Signature(values(graph.inputs), values(graph.outputs))


def _set(entry: onnx.ValueInfoProto, sizes: tuple[int, ...], name: str, bound: dict[str, int]) -> None:
    """Set the shape of an input, and bind the symbols of its axes."""
    axes, has_rank = _axes(entry), entry.type.tensor_type.HasField("shape")
    given = "x".join(map(str, sizes))
    if has_rank and len(axes) != len(sizes):
        raise InvalidValue(f"--shape {entry.name}={given}: the input of {name} has {len(axes)} axes")
    for axis, size in zip(axes, sizes, strict=False):
        if axis.dim_value > 0 and axis.dim_value != size:
            raise InvalidValue(f"--shape {entry.name}={given}: {name} fixes one of these axes to {axis.dim_value}")
        symbol = _symbol(axis)
        if symbol and bound.setdefault(symbol, size) != size:
            raise InvalidValue(
                f"--shape {entry.name}={given}: the axis {symbol} of {name} is {bound[symbol]} in another place"
            )
    shape = entry.type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add().dim_value = size


def _axes(entry: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return list(entry.type.tensor_type.shape.dim)


def _symbol(axis: onnx.TensorShapeProto.Dimension) -> str:
    """The name of an open axis; empty if it has none. Some exporters write ``?`` for every open axis."""
    return "" if axis.dim_param == "?" else str(axis.dim_param)


def _size_text(axis: onnx.TensorShapeProto.Dimension) -> str:
    return str(axis.dim_value) if axis.dim_value > 0 else "?"


def _inferred(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with shapes inferred anew: those in the file are of other inputs."""
    del model.graph.value_info[:]
    for entry in model.graph.output:
        if entry.type.WhichOneof("value") == "tensor_type":
            for axis in _axes(entry):  # the number of axes stays known
                axis.Clear()
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the inference has no common base class
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"the shapes of {name} contradict each other: {first}") from error
