"""fp16 and bf16 as casts in the ONNX graph, for runtimes that compute in the graph's types.

Input and output stay float32. Nodes that would overflow, or lose small terms of a sum, also stay in float32, surrounded
by casts. Libraries that convert graphs (onnxconverter-common, ONNX Runtime's transformers) support fp16 only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwnas.graphs import Graph, add_node
from hwnas.lowering.images import Images
from hwnas.lowering.observe import largest

Narrow = Literal["fp16", "bf16"]

_TYPES = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
# Sums of many values: in fp16 the sum over an image of 64x64 overflows for values from 16 on, and loses small values.
_SUMS = {"ReduceMean", "ReduceSum", "ReduceL2", "GlobalAveragePool", "Softmax", "LogSoftmax"}
_HEADROOM = 4.0  # largest fp16 value / largest accepted value: other images have larger values


def cast(model: onnx.ModelProto, to: Narrow, images: Images | None = None) -> onnx.ModelProto:
    """A graph that computes in a narrow type.

    Args:
        model: an fp32 graph with inputs of one static shape.
        to: the type of values and weights.
        images: ``(n, channels, height, width)``; with fp16, nodes whose values on them come near its limit stay in
            fp32. Without images only the weights are checked, which suits random weights.

    Raises:
        InvalidValue: the images are missing, constant or not finite.
    """
    whole = Graph(model)
    wide = _islands(whole, images, large=to == "fp16")
    kind, dtype = _TYPES[to]
    floats = _floats(model)
    graph = onnx.GraphProto(name=model.graph.name)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    stored = whole.initializers
    types = dict.fromkeys(whole.inputs, TensorProto.FLOAT)
    names: dict[tuple[str, int], str] = {}

    def typed(name: str, wanted: int) -> str:
        """The name of a value in a type; adds a cast if there is none yet."""
        if name not in floats or types.get(name) == wanted:
            if name in stored and (name, 0) not in names:
                names[name, 0] = name
                graph.initializer.add().CopyFrom(stored[name])
            return name
        if (name, wanted) not in names:
            names[name, wanted] = f"{name}.{TensorProto.DataType.Name(wanted).lower()}"
            if name in stored:
                value = numpy_helper.to_array(stored[name])
                narrow = value.astype(dtype) if wanted == kind else value
                graph.initializer.add().CopyFrom(numpy_helper.from_array(narrow, names[name, wanted]))
            else:
                _add_cast(graph, name, names[name, wanted], wanted)
        return names[name, wanted]

    for node in whole.nodes:
        wanted = TensorProto.FLOAT if node.name in wide else kind
        inputs = [typed(name, wanted) if name else "" for name in node.inputs]  # their casts come before the node
        copy = add_node(graph, node, inputs, node.outputs)
        # A cast of the graph, such as that of a mask of tokens, names its own type.
        made = TensorProto.FLOAT if node.op_type == "Cast" else wanted
        types |= dict.fromkeys((name for name in node.outputs if name in floats), made)
        for i, name in enumerate(node.outputs):
            if name in whole.outputs and types.get(name) == kind:
                copy.output[i] = names[name, kind] = f"{name}.narrow"
                _add_cast(graph, f"{name}.narrow", name, TensorProto.FLOAT)
    result = helper.make_model(graph, opset_imports=model.opset_import, producer_name=model.producer_name)
    result.ir_version = model.ir_version
    return result


def _add_cast(graph: onnx.GraphProto, source: str, result: str, to: int) -> None:
    graph.node.append(helper.make_node("Cast", [source], [result], name=f"cast.{result}", to=to))


def _floats(model: onnx.ModelProto) -> set[str]:
    """Names of the values and weights in float32."""
    graph = Graph(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    return {name for name, kind in graph.types.items() if kind == TensorProto.FLOAT}


def _islands(graph: Graph, images: Images | None, *, large: bool) -> set[str]:
    """Names of the nodes that stay in fp32; `large`: also those with values too large or too small for fp16."""
    found = {node.name for node in graph.nodes if node.op_type in _SUMS}
    if not large:
        return found  # bf16 has the range of fp32
    weights = [t for t in graph.initializers.values() if t.data_type == TensorProto.FLOAT]
    out = {tensor.name for tensor in weights if not _held(numpy_helper.to_array(tensor))}
    if images is not None:
        limit = np.finfo(np.float16).max / _HEADROOM
        out |= {name for name, value in largest(graph.model, images).items() if value > limit}
    return found | {node.name for node in graph.nodes if _touches(out, (*node.inputs, *node.outputs))}


def _touches(names: set[str], those: Iterable[str]) -> bool:
    return not names.isdisjoint(those)


def _held(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    """Whether fp16 can represent these weights: the largest is finite, and not among the smallest subnormals."""
    facts, most = np.finfo(np.float16), float(np.abs(values).max(initial=0.0))
    return most == 0.0 or float(facts.tiny) <= most <= float(facts.max)
