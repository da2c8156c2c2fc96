"""The ONNX operators of networks, and the work of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hwnas.graphs import Node

# Operators for computer vision that TensorRT's parser supports in fp32, fp16 and bf16. Others are rejected when a
# network is lowered and when a bundle is read.
OPERATORS = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Neg", "Abs", "Sqrt", "Exp", "Log", "Erf"),
        *("Reciprocal", "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "InstanceNormalization"),
        *("LayerNormalization", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LeakyRelu", "PRelu"),
        *("Elu", "Gelu", "Softplus", "Softmax", "LogSoftmax", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"),
        *("GlobalAveragePool", "GlobalMaxPool", "MaxPool", "AveragePool", "Concat", "Split", "Slice", "Pad", "Gather"),
        *("Resize", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Identity", "Constant"),
        *("Cast", "QuantizeLinear", "DequantizeLinear"),
        *("ArgMax", "Equal", "GatherElements", "Not", "ReduceL2", "TopK"),  # of attention by hashing
    )
)
MAX_WORK = 2**41  # MACs of a program: two hundred times ResNet-152 on an image of 224x224


def work(node: Node, shapes: Mapping[str, Sequence[int]]) -> int:
    """MACs of a node; of one without MACs, the number of elements that it reads or writes, whichever is larger.

    Args:
        node: one of `OPERATORS`.
        shapes: name of a value or weight -> its shape.
    """
    given = [shapes.get(name, ()) for name in node.inputs]
    made = max(math.prod(shapes.get(name, ())) for name in node.outputs)
    if node.op_type == "Conv":
        return made * math.prod(given[1][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(given[0]) * math.prod(given[1][1:])
    if node.op_type in ("Gemm", "MatMul"):
        reduced = -2 if node.attribute("transA", 0) else -1
        return made * (given[0][reduced] if given[0] else 1)
    if node.op_type in ("MaxPool", "AveragePool"):
        return made * math.prod(node.attribute("kernel_shape", [1]))
    return max([made, *map(math.prod, given)])


def too_much_work(total: int) -> str | None:
    """Why a program with this many MACs is rejected; None if it is not."""
    if total <= MAX_WORK:
        return None
    return f"a run takes {total:.2g} multiply-accumulates; at most {MAX_WORK:.2g} are accepted"
