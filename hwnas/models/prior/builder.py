"""Writes ONNX graphs node by node, in the patterns that torch's exporters write."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Attribute: TypeAlias = int | float | str | list[int]

OPSET, IR_VERSION = 20, 10
_ACTS = {"relu": "Relu", "leaky": "LeakyRelu", "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "Elu"}


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: its name and static shape."""

    name: str
    shape: tuple[int, ...]


class Builder:
    """A graph in the making.

    Args:
        rng: of the weights and of the choices of blocks.
        recent: whether to write patterns of torch's present exporter (Gelu, HardSwish, Gemm between two Reshapes), or
            of the former one (Erf, HardSigmoid and Mul, MatMul and Add).
        turn: from 0 to 1, which block comes first; at random if None.

    Attributes:
        macs: multiply-accumulates of the convolutions and matrix products so far.
        multiple: numbers of channels are multiples of this (`near`), usually 8.
    """

    def __init__(self, rng: np.random.Generator, *, recent: bool = True, turn: float | None = None) -> None:
        self.rng = rng
        self.recent = recent
        self.turn = turn
        self.macs = 0
        self.multiple = 8
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []

    def input(self, shape: Sequence[int], *, tokens: int | None = None) -> Value:
        """The graph's input: float32, or int64 if it holds numbers of `tokens` different tokens."""
        kind = TensorProto.FLOAT if tokens is None else TensorProto.INT64
        self._inputs.append(helper.make_tensor_value_info("x", kind, list(shape)))
        return Value("x", tuple(shape))

    def model(self, *outputs: Value) -> onnx.ModelProto:
        """The finished graph."""
        made = [helper.make_tensor_value_info(out.name, TensorProto.FLOAT, list(out.shape)) for out in outputs]
        graph = helper.make_graph(self._nodes, "prior", self._inputs, made, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def node(self, op: str, inputs: Sequence[Value | str], shape: Sequence[int], **attributes: Attribute) -> Value:
        """Add a node with one output of a known shape."""
        [made] = self.nodes(op, inputs, [shape], **attributes)
        return made

    def nodes(
        self, op: str, inputs: Sequence[Value | str], shapes: Sequence[Sequence[int]], **attributes: Attribute
    ) -> list[Value]:
        """Add a node with several outputs of known shapes."""
        number = len(self._nodes)
        made = [Value(f"v{number}_{i}", tuple(shape)) for i, shape in enumerate(shapes)]
        names = [value if isinstance(value, str) else value.name for value in inputs]
        node = helper.make_node(op, names, [value.name for value in made], name=f"{op}_{number}")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return made

    def weight(self, *shape: int, fan_in: int = 0) -> str:
        """A random weight; normal with the deviation ``1 / sqrt(fan_in)``, or constant 0.1 if that is 0."""
        if fan_in:
            array = self.rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(fan_in))
        else:
            array = np.full(shape, 0.1, np.float32)
        return self.constant(array)

    def constant(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        """A constant tensor."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of integers, such as the shape of a Reshape."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A constant number."""
        return self.constant(np.array(value, np.float32))

    # Layers

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        pad: bool = True,
        bias: bool = True,
    ) -> Value:
        """A convolution of ``(1, channels, height, width)``, or of ``(1, channels, length)``."""
        rank = len(x.shape) - 2
        sides = (kernel,) * rank if isinstance(kernel, int) else kernel
        pads = [side // 2 if pad else 0 for side in sides]
        out = [(size + 2 * p - k) // stride + 1 for size, p, k in zip(x.shape[2:], pads, sides, strict=True)]
        fan_in = x.shape[1] // groups * math.prod(sides)
        inputs: list[Value | str] = [x, self.weight(channels, x.shape[1] // groups, *sides, fan_in=fan_in)]
        inputs += [self.weight(channels)] if bias else []
        self.macs += channels * math.prod(out) * fan_in
        return self.node(
            "Conv",
            inputs,
            (1, channels, *out),
            kernel_shape=list(sides),
            strides=[stride] * rank,
            pads=[*pads, *pads],
            group=groups,
        )

    def pool(self, x: Value, kind: str, kernel: int, stride: int) -> Value:
        """A MaxPool or AveragePool."""
        pad = (kernel - 1) // 2
        out = [(size + 2 * pad - kernel) // stride + 1 for size in x.shape[2:]]
        return self.node(
            kind,
            [x],
            (*x.shape[:2], *out),
            kernel_shape=[kernel] * len(out),
            strides=[stride] * len(out),
            pads=[pad] * 2 * len(out),
        )

    def resized(self, x: Value, side: int, mode: str) -> Value:
        """Square maps of another size: nearest, linear or cubic."""
        how = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"} if mode == "nearest" else {}
        if side % x.shape[2]:
            size = ["", "", self.integers(*x.shape[:2], side, side)]
        else:
            factor = side // x.shape[2]
            size = ["", self.constant(np.array([1, 1, factor, factor], np.float32))]
        return self.node("Resize", [x, *size], (*x.shape[:2], side, side), mode=mode, **how)

    def mean(self, x: Value, *axes: int, keep: bool = True) -> Value:
        """The mean over axes; over all of an image in either of two ways of writing it."""
        if keep and axes == (2, 3) and not self.recent:
            return self.node("GlobalAveragePool", [x], (*x.shape[:2], 1, 1))
        shape = [1 if i in axes else size for i, size in enumerate(x.shape) if keep or i not in axes]
        return self.node("ReduceMean", [x, self.integers(*axes)], shape, keepdims=int(keep))

    def linear(self, x: Value, features: int, *, bias: bool = True) -> Value:
        """A linear layer on the last axis."""
        rows, width = math.prod(x.shape[:-1]), x.shape[-1]
        self.macs += rows * width * features
        shape = (*x.shape[:-1], features)
        if self.recent or len(x.shape) == 2:
            flat = x if len(x.shape) == 2 else self.reshape(x, rows, width)
            weight = self.weight(features, width, fan_in=width)
            inputs: list[Value | str] = [flat, weight, *([self.weight(features)] if bias else [])]
            made = self.node("Gemm", inputs, (rows, features), transB=1)
            return made if len(x.shape) == 2 else self.reshape(made, *shape)
        made = self.node("MatMul", [x, self.weight(width, features, fan_in=width)], shape)
        return self.node("Add", [self.weight(features), made], shape) if bias else made

    def matmul(self, a: Value, b: Value) -> Value:
        """A product of two computed matrices, in batches."""
        self.macs += math.prod(a.shape) * b.shape[-1]
        return self.node("MatMul", [a, b], (*a.shape[:-1], b.shape[-1]))

    def reshape(self, x: Value, *shape: int) -> Value:
        """Another shape of the same elements."""
        return self.node("Reshape", [x, self.integers(*shape)], shape)

    def padded(self, x: Value, *pads: int) -> Value:
        """Zeros before the elements of each axis, then behind them, as in ONNX."""
        rank = len(x.shape)
        shape = [size + a + b for size, a, b in zip(x.shape, pads[:rank], pads[rank:], strict=True)]
        return self.node("Pad", [x, self.integers(*pads)], shape, mode="constant")

    def transpose(self, x: Value, *order: int) -> Value:
        """Axes in another order."""
        return self.node("Transpose", [x], [x.shape[i] for i in order], perm=list(order))

    def add(self, a: Value, b: Value) -> Value:
        """The sum of two tensors of one shape."""
        return self.node("Add", [a, b], a.shape)

    def mul(self, a: Value, b: Value | str) -> Value:
        """A product by elements; `b` may have axes of size 1, or be a weight."""
        return self.node("Mul", [a, b], a.shape)

    def concat(self, values: Sequence[Value], axis: int = 1) -> Value:
        """Tensors in a row."""
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return self.node("Concat", list(values), shape, axis=axis)

    def split(self, x: Value, sizes: Sequence[int], axis: int = 1) -> list[Value]:
        """Parts of a tensor."""
        shapes = [[size if i == axis else side for i, side in enumerate(x.shape)] for size in sizes]
        return self.nodes("Split", [x, self.integers(*sizes)], shapes, axis=axis)

    def layer_norm(self, x: Value) -> Value:
        """LayerNorm over the last axis."""
        width = x.shape[-1]
        return self.node(
            "LayerNormalization", [x, self.weight(width), self.weight(width)], x.shape, axis=-1, epsilon=1e-6
        )

    def softmax(self, x: Value, axis: int = -1) -> Value:
        """Softmax over an axis."""
        return self.node("Softmax", [x], x.shape, axis=axis)

    def act(self, x: Value, name: str) -> Value:
        """An activation: relu, relu6, silu, hard-swish, gelu, leaky, sigmoid, tanh, elu or none."""
        shape = x.shape
        if name in _ACTS:
            return self.node(_ACTS[name], [x], shape)
        if name == "relu6":
            return self.node("Clip", [x, self.scalar(0.0), self.scalar(6.0)], shape)
        if name == "silu":
            return self.mul(x, self.node("Sigmoid", [x], shape))
        if name == "hard-swish":
            return self._hard_swish(x)
        return x if name == "none" else self._gelu(x)

    def _hard_swish(self, x: Value) -> Value:
        if self.recent:
            return self.node("HardSwish", [x], x.shape)
        return self.mul(x, self.node("HardSigmoid", [x], x.shape, alpha=1 / 6))

    def _gelu(self, x: Value) -> Value:
        if self.recent:
            return self.node("Gelu", [x], x.shape)
        part = self.node("Erf", [self.node("Div", [x, self.scalar(math.sqrt(2))], x.shape)], x.shape)
        return self.mul(self.mul(x, self.node("Add", [part, self.scalar(1.0)], x.shape)), self.scalar(0.5))

    # Choices

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < probability)

    def one_of(self, *choices: str) -> str:
        """One of some names."""
        return choices[int(self.rng.integers(len(choices)))]

    def number(self, *choices: int) -> int:
        """One of some numbers."""
        return choices[int(self.rng.integers(len(choices)))]

    def near(self, value: float, multiple: int, spread: float = 0.0) -> int:
        """A multiple of a number near a value, which varies by a factor of up to ``1 + spread``.

        Multiples of at most 8 are of `multiple`, if that is less; widths of tokens, of more, have to fit their heads.
        """
        multiple = min(multiple, self.multiple) if multiple <= 8 else multiple
        factor = float(np.exp(self.rng.uniform(-1, 1) * math.log1p(spread)))
        return max(multiple, round(value * factor / multiple) * multiple)
