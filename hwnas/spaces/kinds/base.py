"""What is known of a kind of op, and common parts of the counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op, Shape

Role = Literal["edge", "activation", "sum", "concat", "zero", "none"]
# Attributes that are strings; all others are integers.
TEXTS = frozenset({"act", "graph", "norm", "pool", "positions", "sizes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerChannels:
    """Channels that exist only between the layers of a block, so they may be sorted by importance.

    Names are those of the tensors in the state of the op's module; a tensor that an op does not have is skipped.

    Attributes:
        reader: weight that reads the channels, along its axis 1; its L1 norm is their importance.
        also_read: further weights that read them, along axis 1.
        writers: tensors that make them, along axis 0.
        width: number of these channels in an op.
    """

    reader: str
    also_read: tuple[str, ...] = ()
    writers: tuple[str, ...]
    width: Callable[[Op], int]


def nothing(_: Op) -> int:
    """The count of an op that has none."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpKind:
    """What is known of a kind of op without building it.

    Attributes:
        module: builds the torch module of an op, ``package.module:name``; it maps a tensor ``(n, *shape)`` for each
            shape of `Op.inputs` to ``(n, *op.output)``. None for a kind that is never built.
        attributes: names of the attributes.
        macs, params, activations: as `Op.macs`, `Op.params` and `Op.activations` count them.
        role: in a cell. An "edge" reads one tensor; an "activation" has no weights and several edges share it; "sum"
            and "concat" merge several tensors; "zero" outputs zeros of the shape of its input; "none" has no output.
        activated: it reads the activated tensor where its position offers one (`Position.activated`).
        partial: it can run on some of the channels, with as many outputs as inputs (PC-DARTS).
        inner: channels that a narrower op of the same slot leaves out; training sorts them first
            (`hwnas.supernet.sort`).
        takes: function of an op and the largest of its slot, ``package.module:name``: name of a tensor -> the elements
            of the largest op's tensor that it takes, along each axis. None if these are the first channels.
        shared: function of the ops of a slot, ``package.module:name``: an op whose module has the tensors of all. None
            if the op with the most elements has them.
        own_eps: its module has its own epsilons of BN instead of the space's.
        inputs: function of an op: the shapes of its inputs, the first of which is `Op.input`. None if it reads only
            that one.
        dtype: type of the first input, "int64" for tokens; all others are float32.
        attends: its networks are trained like a transformer's layers: with AdamW rather than SGD.
        resizable: neither its graph nor its weights depend on the sides of its images, the axes after the first.
    """

    module: str | None
    attributes: frozenset[str] = frozenset()
    macs: Callable[[Op], int] = nothing
    params: Callable[[Op], int] = nothing
    activations: Callable[[Op], int]
    role: Role = "edge"
    activated: bool = False
    partial: bool = False
    inner: tuple[InnerChannels, ...] = ()
    takes: str | None = None
    shared: str | None = None
    own_eps: bool = False
    inputs: Callable[[Op], tuple[Shape, ...]] | None = None
    dtype: Literal["float32", "int64"] = "float32"
    attends: bool = False
    resizable: bool = True

    @property
    def merges(self) -> bool:
        """Whether it stands for a node of a cell, which makes one tensor of those that reach it."""
        return self.role in ("sum", "concat", "zero")


def squeeze_width(mid: int) -> int:
    """Width of a squeeze-and-excitation bottleneck over `mid` channels (MobileNetV3: a quarter, divisible by 8)."""
    return make_divisible(mid // 4)


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at least `divisor` and not below 90% of it (MobileNetV2)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def area(shape: tuple[int, ...]) -> int:
    """Pixels of a shape ``(channels, height, width)``."""
    return math.prod(shape[1:])


def both_live(op: Op) -> int:
    """Live values of an op whose input and output are live together."""
    return math.prod(op.input) + math.prod(op.output)
