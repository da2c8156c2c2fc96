"""Edges and nodes of cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwnas.spaces.kinds.base import OpKind, area, both_live, nothing
from hwnas.spaces.kinds.convolutions import conv_macs, conv_params

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op, Shape


def _basic_block_macs(op: Op) -> int:
    return conv_macs(op) + (9 * op.output[0] ** 2 + op.input[0] * op.output[0]) * area(op.output)


def _basic_block_params(op: Op) -> int:
    return conv_params(op) + 9 * op.output[0] ** 2 + 2 * op.output[0] + op.input[0] * op.output[0]


def _basic_block_activations(op: Op) -> int:
    return math.prod(op.input) + 3 * math.prod(op.output)  # the shortcut is computed last


def _depthwise_macs(op: Op) -> int:
    """One depthwise convolution and the 1x1 after it."""
    return op.input[0] * (op.number("kernel") ** 2 + op.output[0]) * area(op.output)


def _depthwise_params(op: Op) -> int:
    return op.input[0] * (op.number("kernel") ** 2 + op.output[0]) + 2 * op.output[0]


def _sep_conv_macs(op: Op) -> int:
    once = op.input[0] * (op.number("kernel") ** 2 + op.input[0]) * area(op.output)
    return once + _depthwise_macs(op)


def _sep_conv_params(op: Op) -> int:
    once = op.input[0] * (op.number("kernel") ** 2 + op.input[0]) + 2 * op.input[0]
    return once + _depthwise_params(op)


def _terms_activations(op: Op) -> int:
    return sum(map(math.prod, op.inputs)) + math.prod(op.output)


def _terms(op: Op) -> tuple[Shape, ...]:
    return (op.input,) * op.number("terms")


CELLS: dict[str, OpKind] = {
    # ReLU, convolution, BN (Liu et al., "DARTS", ICLR 2019; Dong and Yang, "NAS-Bench-201", ICLR 2020)
    "relu-conv": OpKind(
        module="hwnas.nn.cells:relu_conv",
        attributes=frozenset({"kernel", "stride"}),
        macs=conv_macs,
        params=conv_params,
        activations=both_live,
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
        activations=both_live,
        partial=True,
    ),
    "dil-conv": OpKind(
        module="hwnas.nn.cells:dil_conv",
        attributes=frozenset({"kernel", "stride"}),
        macs=_depthwise_macs,
        params=_depthwise_params,
        activations=both_live,
        partial=True,
    ),
    # ReLU, two concatenated 1x1 with stride 2, one of them shifted by a pixel, BN (DARTS)
    "factorized-reduce": OpKind(
        module="hwnas.nn.cells:FactorizedReduce",
        macs=lambda op: op.input[0] * op.output[0] * area(op.output),
        params=lambda op: op.input[0] * op.output[0] + 2 * op.output[0],
        activations=both_live,
        partial=True,
    ),
    # sum, and concatenation of the channels, of several tensors of the shape `input`
    "sum": OpKind(
        module="hwnas.nn.cells:sum_of",
        attributes=frozenset({"terms"}),
        activations=_terms_activations,
        role="sum",
        inputs=_terms,
    ),
    "concat": OpKind(
        module="hwnas.nn.cells:concat_of",
        attributes=frozenset({"terms"}),
        activations=_terms_activations,
        role="concat",
        inputs=_terms,
    ),
    # zeros for each image
    "zero": OpKind(module="hwnas.nn.cells:Zero", attributes=frozenset({"stride"}), activations=both_live, role="zero"),
    # an edge without an output; it never runs
    "none": OpKind(module=None, activations=nothing, role="none", partial=True),
}
