"""Blocks of convolutions, pooling and classifiers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwnas.spaces.kinds.base import InnerChannels, OpKind, area, both_live, squeeze_width

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op


def conv_macs(op: Op) -> int:
    """MACs of a convolution."""
    return op.input[0] * op.output[0] * op.number("kernel") ** 2 * area(op.output)


def conv_params(op: Op) -> int:
    """Parameters of a convolution and its BN."""
    return op.input[0] * op.output[0] * op.number("kernel") ** 2 + 2 * op.output[0]


def _mbconv_macs(op: Op) -> int:
    mid = op.number("mid")
    expand = op.number("expand") * op.input[0] * mid * area(op.input)
    depthwise = mid * op.number("kernel") ** 2 * area(op.output)
    squeeze = op.number("se") * 2 * mid * squeeze_width(mid)
    return expand + depthwise + squeeze + mid * op.output[0] * area(op.output)


def _mbconv_params(op: Op) -> int:
    mid, squeeze = op.number("mid"), squeeze_width(op.number("mid"))
    expand = op.number("expand") * (op.input[0] * mid + 2 * mid)
    depthwise = mid * op.number("kernel") ** 2 + 2 * mid
    excite = op.number("se") * (2 * mid * squeeze + mid + squeeze)
    return expand + depthwise + excite + mid * op.output[0] + 2 * op.output[0]


def _grouped_macs(op: Op) -> int:
    mid, groups = op.number("mid"), op.number("groups")
    ends = op.input[0] * mid * area(op.input) + mid * op.output[0] * area(op.output)
    return ends // groups + mid * op.number("kernel") ** 2 * area(op.output)


def _grouped_params(op: Op) -> int:
    mid, groups = op.number("mid"), op.number("groups")
    return (op.input[0] + op.output[0]) * mid // groups + mid * op.number("kernel") ** 2 + 4 * mid + 2 * op.output[0]


def _grouped_activations(op: Op) -> int:
    wide, deep = op.number("mid") * area(op.input), op.number("mid") * area(op.output)
    kept = op.number("skip") * math.prod(op.input)
    return max(math.prod(op.input) + wide, kept + 2 * wide, kept + wide + deep, kept + deep + math.prod(op.output))


def _classifier_macs(op: Op) -> int:
    hidden = op.number("hidden")
    return op.input[0] * hidden + hidden * op.output[0]


def _classifier_params(op: Op) -> int:
    return _classifier_macs(op) + op.output[0]


def _bottleneck_macs(op: Op) -> int:
    mid = op.number("mid")
    down = op.number("downsample") * op.input[0] * op.output[0] * area(op.output)
    return op.input[0] * mid * area(op.input) + (9 * mid + op.output[0]) * mid * area(op.output) + down


def _bottleneck_params(op: Op) -> int:
    mid, inp, out = op.number("mid"), op.input[0], op.output[0]
    down = op.number("downsample") * (inp * out + 2 * out)
    return inp * mid + 9 * mid * mid + mid * out + 4 * mid + 2 * out + down


def _mbconv_activations(op: Op) -> int:
    inp, out, mid = math.prod(op.input), math.prod(op.output), op.number("mid")
    wide, deep = mid * area(op.input), mid * area(op.output)
    kept = op.number("skip") * inp
    expand = inp + wide if op.number("expand") else 0
    return max(expand, kept + (wide if op.number("expand") else inp) + deep, kept + deep + out)


def _bottleneck_activations(op: Op) -> int:
    inp, out, mid = math.prod(op.input), math.prod(op.output), op.number("mid")
    wide, deep = mid * area(op.input), mid * area(op.output)
    shortcut = op.number("downsample") * out  # computed while the input and the other branch's output are live
    return inp + max(wide + deep, deep + out, out + shortcut)


def _classifier_activations(op: Op) -> int:
    return math.prod(op.input) + op.input[0]  # the image and its mean; later layers are smaller


def _linear_macs(op: Op) -> int:
    return op.input[0] * op.output[0]


def _linear_params(op: Op) -> int:
    return op.macs + op.output[0]


def _mid(op: Op) -> int:
    return op.number("mid")


def _conv_bn(layer: str) -> tuple[str, ...]:
    bn = (f"layers.{layer}.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var"))
    return f"layers.{layer}.conv.weight", *bn


CONVOLUTIONS: dict[str, OpKind] = {
    # convolution, BN, activation
    "conv": OpKind(
        module="hwnas.nn.blocks:conv",
        attributes=frozenset({"kernel", "stride", "act"}),
        macs=conv_macs,
        params=conv_params,
        activations=both_live,
        activated=True,
        partial=True,
    ),
    # convolution of square patches side by side, BN, activation
    "patch-conv": OpKind(
        module="hwnas.nn.blocks:patch_conv",
        attributes=frozenset({"patch", "act"}),
        macs=lambda op: op.input[0] * op.output[0] * op.number("patch") ** 2 * area(op.output),
        params=lambda op: op.input[0] * op.output[0] * op.number("patch") ** 2 + 2 * op.output[0],
        activations=both_live,
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
    # inverted residual of FBNet whose 1x1 convolutions have groups, with channels shuffled after the first (Wu et al.
    # 2019, figure 3)
    "grouped-mbconv": OpKind(
        module="hwnas.nn.blocks:GroupedMBConv",
        attributes=frozenset({"mid", "kernel", "stride", "act", "groups", "skip"}),
        macs=_grouped_macs,
        params=_grouped_params,
        activations=_grouped_activations,
        resizable=False,
    ),
    # convolution, BN, activation, then the input is added
    "residual-conv": OpKind(
        module="hwnas.nn.blocks:ResidualConv",
        attributes=frozenset({"kernel", "act"}),
        macs=conv_macs,
        params=conv_params,
        activations=both_live,
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
        activations=both_live,
        partial=True,
    ),
    # average over the pixels inside the image only
    "avgpool": OpKind(
        module="hwnas.nn.blocks:avgpool",
        attributes=frozenset({"kernel", "stride"}),
        activations=both_live,
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
    "relu": OpKind(module="hwnas.nn.blocks:relu", activations=both_live, role="activation"),
}
