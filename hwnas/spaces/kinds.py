"""Kinds of ops: one record each, which holds all that the packages need to know of a kind.

To add a kind, add a record to `KINDS` and the module that it names. A package outside hwnas adds its record to the
dictionary before it makes ops of that kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hwnas.spaces.traced import costs

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op

Role = Literal["edge", "activation", "sum", "concat", "zero", "none"]
TEXTS = frozenset({"act", "graph", "sizes"})  # attributes that are strings; all others are integers


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


def _nothing(_: Op) -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpKind:
    """What is known of a kind of op without building it.

    Attributes:
        module: builds the torch module of an op, ``package.module:name``; it maps ``(n, *op.input)``, `Op.inputs`
            tensors of them, to ``(n, *op.output)``. None for a kind that is never built.
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
    """

    module: str | None
    attributes: frozenset[str] = frozenset()
    macs: Callable[[Op], int] = _nothing
    params: Callable[[Op], int] = _nothing
    activations: Callable[[Op], int]
    role: Role = "edge"
    activated: bool = False
    partial: bool = False
    inner: tuple[InnerChannels, ...] = ()
    takes: str | None = None
    shared: str | None = None
    own_eps: bool = False

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


def _area(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:])


def _conv_macs(op: Op) -> int:
    return op.input[0] * op.output[0] * op.number("kernel") ** 2 * _area(op.output)


def _conv_params(op: Op) -> int:
    return op.input[0] * op.output[0] * op.number("kernel") ** 2 + 2 * op.output[0]


def _mbconv_macs(op: Op) -> int:
    mid = op.number("mid")
    expand = op.number("expand") * op.input[0] * mid * _area(op.input)
    depthwise = mid * op.number("kernel") ** 2 * _area(op.output)
    squeeze = op.number("se") * 2 * mid * squeeze_width(mid)
    return expand + depthwise + squeeze + mid * op.output[0] * _area(op.output)


def _mbconv_params(op: Op) -> int:
    mid, squeeze = op.number("mid"), squeeze_width(op.number("mid"))
    expand = op.number("expand") * (op.input[0] * mid + 2 * mid)
    depthwise = mid * op.number("kernel") ** 2 + 2 * mid
    excite = op.number("se") * (2 * mid * squeeze + mid + squeeze)
    return expand + depthwise + excite + mid * op.output[0] + 2 * op.output[0]


def _classifier_macs(op: Op) -> int:
    hidden = op.number("hidden")
    return op.input[0] * hidden + hidden * op.output[0]


def _classifier_params(op: Op) -> int:
    return _classifier_macs(op) + op.output[0]


def _bottleneck_macs(op: Op) -> int:
    mid = op.number("mid")
    down = op.number("downsample") * op.input[0] * op.output[0] * _area(op.output)
    return op.input[0] * mid * _area(op.input) + (9 * mid + op.output[0]) * mid * _area(op.output) + down


def _bottleneck_params(op: Op) -> int:
    mid, inp, out = op.number("mid"), op.input[0], op.output[0]
    down = op.number("downsample") * (inp * out + 2 * out)
    return inp * mid + 9 * mid * mid + mid * out + 4 * mid + 2 * out + down


def _conv_activations(op: Op) -> int:
    return math.prod(op.input) + math.prod(op.output)


def _mbconv_activations(op: Op) -> int:
    inp, out, mid = math.prod(op.input), math.prod(op.output), op.number("mid")
    wide, deep = mid * _area(op.input), mid * _area(op.output)
    kept = op.number("skip") * inp
    expand = inp + wide if op.number("expand") else 0
    return max(expand, kept + (wide if op.number("expand") else inp) + deep, kept + deep + out)


def _bottleneck_activations(op: Op) -> int:
    inp, out, mid = math.prod(op.input), math.prod(op.output), op.number("mid")
    wide, deep = mid * _area(op.input), mid * _area(op.output)
    shortcut = op.number("downsample") * out  # computed while the input and the other branch's output are live
    return inp + max(wide + deep, deep + out, out + shortcut)


def _classifier_activations(op: Op) -> int:
    return math.prod(op.input) + op.input[0]  # the image and its mean; later layers are smaller


def _linear_macs(op: Op) -> int:
    return op.input[0] * op.output[0]


def _linear_params(op: Op) -> int:
    return op.macs + op.output[0]


def _basic_block_macs(op: Op) -> int:
    return _conv_macs(op) + (9 * op.output[0] ** 2 + op.input[0] * op.output[0]) * _area(op.output)


def _basic_block_params(op: Op) -> int:
    return _conv_params(op) + 9 * op.output[0] ** 2 + 2 * op.output[0] + op.input[0] * op.output[0]


def _basic_block_activations(op: Op) -> int:
    return math.prod(op.input) + 3 * math.prod(op.output)  # the shortcut is computed last


def _depthwise_macs(op: Op) -> int:
    """One depthwise convolution and the 1x1 after it."""
    return op.input[0] * (op.number("kernel") ** 2 + op.output[0]) * _area(op.output)


def _depthwise_params(op: Op) -> int:
    return op.input[0] * (op.number("kernel") ** 2 + op.output[0]) + 2 * op.output[0]


def _sep_conv_macs(op: Op) -> int:
    once = op.input[0] * (op.number("kernel") ** 2 + op.input[0]) * _area(op.output)
    return once + _depthwise_macs(op)


def _sep_conv_params(op: Op) -> int:
    once = op.input[0] * (op.number("kernel") ** 2 + op.input[0]) + 2 * op.input[0]
    return once + _depthwise_params(op)


def _terms_activations(op: Op) -> int:
    return op.inputs * math.prod(op.input) + math.prod(op.output)


def _mid(op: Op) -> int:
    return op.number("mid")


def _conv_bn(layer: str) -> tuple[str, ...]:
    bn = (f"layers.{layer}.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
    return f"layers.{layer}.conv.weight", *bn


KINDS: dict[str, OpKind] = {
    # convolution, BN, activation
    "conv": OpKind(
        module="hwnas.nn.blocks:conv",
        attributes=frozenset({"kernel", "stride", "act"}),
        macs=_conv_macs,
        params=_conv_params,
        activations=_conv_activations,
        activated=True,
        partial=True,
    ),
    # inverted residual of MobileNetV3 (Howard et al. 2019, figure 4); `expand=0` omits the first 1x1
    "mbconv": OpKind(
        module="hwnas.nn.blocks:MBConv",
        attributes=frozenset({"mid", "kernel", "stride", "act", "expand", "se", "skip"}),
        macs=_mbconv_macs,
        params=_mbconv_params,
        activations=_mbconv_activations,
        inner=(
            InnerChannels(
                reader="layers.project.conv.weight",
                also_read=("layers.se.reduce.weight",),
                writers=(
                    *_conv_bn("expand"),
                    *_conv_bn("depthwise"),
                    "layers.se.expand.weight",
                    "layers.se.expand.bias",
                ),
                width=_mid,
            ),
            InnerChannels(
                reader="layers.se.expand.weight",
                writers=("layers.se.reduce.weight", "layers.se.reduce.bias"),
                width=lambda op: squeeze_width(_mid(op)),
            ),
        ),
    ),
    # convolution, BN, activation, then the input is added
    "residual-conv": OpKind(
        module="hwnas.nn.blocks:ResidualConv",
        attributes=frozenset({"kernel", "act"}),
        macs=_conv_macs,
        params=_conv_params,
        activations=_conv_activations,
    ),
    # residual of ResNet-50 (He et al. 2016, figure 5); 2x2 average pool and 1x1 on the shortcut (He et al. 2019, "-D")
    "bottleneck": OpKind(
        module="hwnas.nn.blocks:Bottleneck",
        attributes=frozenset({"mid", "stride", "act", "downsample"}),
        macs=_bottleneck_macs,
        params=_bottleneck_params,
        activations=_bottleneck_activations,
        inner=(
            InnerChannels(reader="layers.spatial.conv.weight", writers=_conv_bn("reduce"), width=_mid),
            InnerChannels(reader="layers.expand.conv.weight", writers=_conv_bn("spatial"), width=_mid),
        ),
    ),
    "maxpool": OpKind(
        module="hwnas.nn.blocks:maxpool",
        attributes=frozenset({"kernel", "stride"}),
        activations=_conv_activations,
        partial=True,
    ),
    # average over the pixels inside the image only
    "avgpool": OpKind(
        module="hwnas.nn.blocks:avgpool",
        attributes=frozenset({"kernel", "stride"}),
        activations=_conv_activations,
        partial=True,
    ),
    # global average pooling, linear without bias, activation, linear
    "classifier": OpKind(
        module="hwnas.nn.blocks:classifier",
        attributes=frozenset({"hidden", "act"}),
        macs=_classifier_macs,
        params=_classifier_params,
        activations=_classifier_activations,
    ),
    # global average pooling, linear
    "linear": OpKind(
        module="hwnas.nn.blocks:linear",
        macs=_linear_macs,
        params=_linear_params,
        activations=_classifier_activations,
    ),
    # BN, ReLU, global average pooling, linear
    "bn-linear": OpKind(
        module="hwnas.nn.blocks:bn_linear",
        macs=_linear_macs,
        params=lambda op: _linear_params(op) + 2 * op.input[0],
        activations=_classifier_activations,
    ),
    "relu": OpKind(module="hwnas.nn.blocks:relu", activations=_conv_activations, role="activation"),
    # ReLU, convolution, BN (Liu et al., "DARTS", ICLR 2019; Dong and Yang, "NAS-Bench-201", ICLR 2020)
    "relu-conv": OpKind(
        module="hwnas.nn.cells:relu_conv",
        attributes=frozenset({"kernel", "stride"}),
        macs=_conv_macs,
        params=_conv_params,
        activations=_conv_activations,
    ),
    # two such convolutions; 2x2 average pooling and 1x1 on the shortcut (NAS-Bench-201, between its stages)
    "basic-block": OpKind(
        module="hwnas.nn.cells:BasicBlock",
        attributes=frozenset({"kernel", "stride"}),
        macs=_basic_block_macs,
        params=_basic_block_params,
        activations=_basic_block_activations,
    ),
    # ReLU, depthwise convolution, 1x1, BN: twice, or once and dilated by two (DARTS)
    "sep-conv": OpKind(
        module="hwnas.nn.cells:sep_conv",
        attributes=frozenset({"kernel", "stride"}),
        macs=_sep_conv_macs,
        params=_sep_conv_params,
        activations=_conv_activations,
        partial=True,
    ),
    "dil-conv": OpKind(
        module="hwnas.nn.cells:dil_conv",
        attributes=frozenset({"kernel", "stride"}),
        macs=_depthwise_macs,
        params=_depthwise_params,
        activations=_conv_activations,
        partial=True,
    ),
    # ReLU, two concatenated 1x1 with stride 2, one of them shifted by a pixel, BN (DARTS)
    "factorized-reduce": OpKind(
        module="hwnas.nn.cells:FactorizedReduce",
        macs=lambda op: op.input[0] * op.output[0] * _area(op.output),
        params=lambda op: op.input[0] * op.output[0] + 2 * op.output[0],
        activations=_conv_activations,
        partial=True,
    ),
    # sum, and concatenation of the channels, of several tensors of the shape `input`
    "sum": OpKind(
        module="hwnas.nn.cells:sum_of", attributes=frozenset({"terms"}), activations=_terms_activations, role="sum"
    ),
    "concat": OpKind(
        module="hwnas.nn.cells:concat_of",
        attributes=frozenset({"terms"}),
        activations=_terms_activations,
        role="concat",
    ),
    # zeros for each image
    "zero": OpKind(
        module="hwnas.nn.cells:Zero", attributes=frozenset({"stride"}), activations=_conv_activations, role="zero"
    ),
    # an edge without an output; it never runs
    "none": OpKind(module=None, activations=_nothing, role="none", partial=True),
    # a part of a traced network, by its graph and the units of each of the graph's groups
    "segment": OpKind(
        module="hwnas.nn.segment:segment",
        attributes=frozenset({"graph", "sizes"}),
        macs=costs.macs,
        params=costs.params,
        activations=costs.activations,
        takes="hwnas.nn.segment:taken",
        shared="hwnas.nn.segment:shared",
        own_eps=True,
    ),
}
