"""Kernels: the layers of a compiled network, by kind and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from hwnas.errors import InvalidValue
from hwnas.runner.program import Layer

Shape: TypeAlias = tuple[int, ...]

BYTES = 4  # of an element; kernels of other precisions are of other recipes, whose times have it in them
_OUTSIDE = re.compile(r"[\s>;]")  # characters that a name of a kernel cannot have
_NAME = re.compile(r"[^\s>;]+")
_PERMUTATION = re.compile(r"\bperm=([\d.]+)")
_MODE = re.compile(r"\bmode=(\w+)")
SEVERAL = "axes=several"  # a trait of transposes (`Kernel.simplest`)
_PRODUCTS = ("MatMul", "Gemm", "FullyConnected")
_GROUP = "Subgraph"  # OpenVINO's kind of any operators that it compiles into one kernel


@dataclass(frozen=True)
class Kernel:
    """What a runtime executes at once: an operator, or a group of fused ones.

    Attributes:
        kind: the runtime's name of it, such as ``Conv`` or ``QLinearConv``.
        inputs: shapes of values and weights, as the runtime reports them.
        outputs: shapes of its results.
        variant: what else its time depends on: fused operators, or attributes (`hwnas.runner.program.Layer`).
    """

    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    variant: str = ""

    @cached_property
    def name(self) -> str:
        """``KIND+VARIANT``, or the kind alone."""
        return f"{self.kind}+{self.variant}" if self.variant else self.kind

    @cached_property
    def traits(self) -> tuple[str, ...]:
        """The parts of the variant: fused operators, or attributes."""
        return tuple(self.variant.split(",")) if self.variant else ()

    @cached_property
    def key(self) -> str:
        """``NAME inputs > outputs``, such as ``Conv+activation=Relu 1x3x8x8;4x3x3x3 > 1x4x8x8``; a scalar is ``s``."""
        return f"{self.name} {_text(self.inputs)} > {_text(self.outputs)}"

    @cached_property
    def permutation(self) -> tuple[int, ...] | None:
        """The order of the axes of a transpose; None for other kernels."""
        found = _PERMUTATION.search(self.variant)
        order = tuple(map(int, found[1].split("."))) if found else None
        return order if order and self.inputs and len(order) == len(self.inputs[0]) else None

    @cached_property
    def simplest(self) -> Kernel:
        """The kernel in the form of which its latency is learned.

        - A transpose is that of the fewest axes that copies the same. Axes of size 1 are left out, and axes that stay
          adjacent are one: ``2.0.3.4.1`` of 1x1024x1x8x12 is ``1.0`` of 1024x96. If several axes as it is written
          change their order, it has the trait `SEVERAL`: ONNX Runtime merges adjacent axes, but counts those of size 1,
          and copies these elements one by one, 3.5 ns each instead of 0.1.
        - A resize to the same size is a copy, and one by a fraction, or of maps whose channels are last, says so in
          traits. ONNX Runtime takes 3 ns per output of a cubic one with the channels last, 100 with the channels
          first, and 200 by a fraction.
        """
        if self.permutation is None:
            mode = _MODE.search(self.variant)
            if not mode or not self.inputs or len(self.outputs) != 1 or len(self.inputs[0]) != len(self.outputs[0]):
                return self
            how = _resizing(mode[1], self.inputs[0], self.outputs[0])
            others = [trait for trait in self.traits if not trait.startswith("mode=")]
            return Kernel(self.kind, self.inputs, self.outputs, ",".join([how, *others]))
        shape = self.inputs[0]
        places = {axis: place for place, axis in enumerate(axis for axis, size in enumerate(shape) if size != 1)}
        runs: list[list[int]] = []
        sizes = [size for size in shape if size != 1]
        for place in (places[axis] for axis in self.permutation if axis in places):
            if runs and runs[-1][-1] + 1 == place:
                runs[-1].append(place)
            else:
                runs.append([place])
        before = sorted(runs)
        given = tuple(math.prod(sizes[place] for place in run) for run in before)
        order = [before.index(run) for run in runs]
        variant = _PERMUTATION.sub(f"perm={'.'.join(map(str, order))}", self.variant)
        if not _moves_one(self.permutation):
            variant += f",{SEVERAL}"
        return Kernel(self.kind, (given, *self.inputs[1:]), (tuple(given[axis] for axis in order),), variant)

    @cached_property
    def weight(self) -> Shape | None:
        """Shape of the weight of a convolution; None for other kernels."""
        if "Conv" not in self.kind:
            return None
        return next((shape for shape in self.inputs[1:] if len(shape) > 2), None)

    @cached_property
    def channel_axis(self) -> int:
        """The axis of the channels in the values of a convolution: 1, or the last one of runtimes that store it so."""
        if self.weight is None or not self.outputs:
            return 1
        given, (made, *_) = self.inputs[0], self.outputs
        grouped = len(self.weight) - len(given)
        channels, per_group = math.prod(self.weight[: 1 + grouped]), self.weight[1 + grouped]
        fits = [axis for axis in (1, -1) if made[axis] == channels and given[axis] % per_group == 0]
        return fits[0] if fits else 1

    @cached_property
    def macs(self) -> int | None:
        """Multiply-accumulates of a convolution or a matrix product; None for other kernels, or without shapes."""
        if not self.outputs or not self.inputs or not self.inputs[0]:
            return None
        made = math.prod(self.outputs[0])
        if products := self.traits.count("MatMul") if self.kind == _GROUP else 0:
            others = self.inputs[1] if len(self.inputs) > 1 else ()
            return products * math.prod(self.inputs[0]) * (others[-1] if others else 1)
        if self.weight is not None:
            grouped = len(self.weight) - len(self.inputs[0])  # OpenVINO's weights of groups: (groups, out, in, ...)
            return made * math.prod(self.weight[1 + grouped :])
        if any(name in self.kind for name in _PRODUCTS):
            first = self.inputs[0]
            return made * (first[-2] if "transA=1" in self.traits and len(first) > 1 else first[-1])
        return None

    @cached_property
    def bytes(self) -> int:
        """Bytes of the values and weights that it reads and writes, at 4 bytes for an element."""
        return BYTES * sum(math.prod(shape) for shape in (*self.inputs, *self.outputs))


def _moves_one(permutation: Sequence[int]) -> bool:
    """Whether a single axis, or several adjacent ones that stay adjacent, change their place among the others."""
    first = [axis for place, axis in enumerate(permutation) if not place or permutation[place - 1] + 1 != axis]
    for moved in first:
        left = [axis for axis in first if axis != moved]
        if left == sorted(left):
            return True
    return False


def _resizing(mode: str, given: Shape, made: Shape) -> str:
    """The variant of a resize."""
    if given == made:
        return "copy"
    how = f"{mode}-last" if given[-1] == made[-1] else mode
    fraction = any(after % max(1, before) for before, after in zip(given, made, strict=True))
    return f"mode={how},fraction={how}" if fraction else f"mode={how}"


def kernel_of(layer: Layer) -> Kernel:
    """The kernel of a layer of a compiled program."""
    kind, _, rest = _OUTSIDE.sub("", layer.kind).partition("+")
    variant = "+".join(filter(None, (rest, _OUTSIDE.sub("", layer.variant))))
    return Kernel(kind or "unnamed", layer.inputs, layer.outputs, variant)


def parse_kernel(key: str) -> Kernel:
    """The kernel of a key.

    Raises:
        InvalidValue: it has another form.
    """
    name, _, rest = key.partition(" ")
    kind, _, variant = name.partition("+")
    given, arrow, made = rest.partition(" > ")
    if not arrow or not _NAME.fullmatch(name):
        raise InvalidValue(f"{key!r} is not a kernel: it should be like 'Conv 1x3x32x32;8x3x3x3 > 1x8x32x32'")
    try:
        return Kernel(kind, _shapes(given), _shapes(made), variant)
    except ValueError as error:
        raise InvalidValue(f"{key!r} is not a kernel: its shapes should be like 1x3x32x32;8x3x3x3") from error


def _text(shapes: tuple[Shape, ...]) -> str:
    return ";".join("x".join(map(str, shape)) or "s" for shape in shapes) or "-"


def _shapes(text: str) -> tuple[Shape, ...]:
    if text == "-":
        return ()
    return tuple(() if part == "s" else tuple(map(int, part.split("x"))) for part in text.split(";"))
