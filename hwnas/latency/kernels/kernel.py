"""Kernels: the layers of a compiled network, by kind and shapes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from hwnas.errors import InvalidValue
from hwnas.runner.program import Layer

Shape: TypeAlias = tuple[int, ...]

BYTES = 4  # of an element; kernels of other precisions are of other recipes, whose times have it in them
_KIND = re.compile(r"[^\s>;]+")
_PRODUCTS = ("MatMul", "Gemm", "FullyConnected")


@dataclass(frozen=True)
class Kernel:
    """What a runtime executes at once: an operator, or a group of fused ones.

    Attributes:
        kind: the runtime's name of it, such as ``Conv`` or ``QLinearConv``.
        inputs: shapes of values and weights, as the runtime reports them.
        outputs: shapes of its results.
    """

    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]

    @cached_property
    def key(self) -> str:
        """``KIND inputs > outputs``, such as ``Conv 1x3x224x224;16x3x3x3 > 1x16x112x112``; a scalar is ``s``."""
        return f"{self.kind} {_text(self.inputs)} > {_text(self.outputs)}"

    @cached_property
    def weight(self) -> Shape | None:
        """Shape of the weight of a convolution; None for other kernels."""
        if "Conv" not in self.kind:
            return None
        return next((shape for shape in self.inputs[1:] if len(shape) > 2), None)

    @cached_property
    def macs(self) -> int | None:
        """Multiply-accumulates of a convolution or a matrix product; None for other kernels, or without shapes."""
        if not self.outputs or not self.inputs or not self.inputs[0]:
            return None
        made = math.prod(self.outputs[0])
        if self.weight is not None:
            grouped = len(self.weight) - len(self.inputs[0])  # OpenVINO's weights of groups: (groups, out, in, ...)
            return made * math.prod(self.weight[1 + grouped :])
        if any(name in self.kind for name in _PRODUCTS):
            return made * self.inputs[0][-1]
        return None

    @cached_property
    def bytes(self) -> int:
        """Bytes of the values and weights that it reads and writes, at 4 bytes for an element."""
        return BYTES * sum(math.prod(shape) for shape in (*self.inputs, *self.outputs))


def kernel_of(layer: Layer) -> Kernel:
    """The kernel of a layer of a compiled program."""
    return Kernel(layer.kind.replace(" ", ""), layer.inputs, layer.outputs)


def parse_kernel(key: str) -> Kernel:
    """The kernel of a key.

    Raises:
        InvalidValue: it has another form.
    """
    kind, _, rest = key.partition(" ")
    given, arrow, made = rest.partition(" > ")
    if not arrow or not _KIND.fullmatch(kind):
        raise InvalidValue(f"{key!r} is not a kernel: it should be like 'Conv 1x3x32x32;8x3x3x3 > 1x8x32x32'")
    try:
        return Kernel(kind, _shapes(given), _shapes(made))
    except ValueError as error:
        raise InvalidValue(f"{key!r} is not a kernel: its shapes should be like 1x3x32x32;8x3x3x3") from error


def _text(shapes: tuple[Shape, ...]) -> str:
    return ";".join("x".join(map(str, shape)) or "s" for shape in shapes) or "-"


def _shapes(text: str) -> tuple[Shape, ...]:
    if text == "-":
        return ()
    return tuple(() if part == "s" else tuple(map(int, part.split("x"))) for part in text.split(";"))
