"""Common parts of spaces of cells: edges that choose an operation, and nodes that sum their edges."""

from __future__ import annotations

from hwnas.errors import InvalidValue
from hwnas.spaces.ops import Op, Shape, make_op


def edge_op(name: str, input_: Shape, output: Shape) -> Op | None:
    """The op of an operation, by its name in the literature; None for an identity.

    Args:
        name: e.g. ``nor_conv_3x3``, ``sep_conv_5x5``, ``skip_connect``, ``none``.
        input_: shape that the edge reads.
        output: shape of its output: the same channels, sides divided by the stride.
    """
    kind, stride = name.rpartition("_")[0], input_[1] // output[1]
    if name == "none":
        return make_op("none", input_, output)
    if name == "skip_connect":
        return None if stride == 1 else make_op("factorized-reduce", input_, output)
    if kind == "nor_conv":  # its activation belongs to the node that it reads
        return make_op("conv", input_, output, kernel=int(name[-1]), stride=stride, act="none")
    return make_op(_KINDS[kind], input_, output, kernel=int(name[-1]), stride=stride)


_KINDS = {
    "avg_pool": "avgpool",
    "max_pool": "maxpool",
    "sep_conv": "sep-conv",
    "dil_conv": "dil-conv",
}


def node_op(terms: int, input_: Shape, output: Shape) -> Op | None:
    """The op of a node: the sum of its edges; zeros without edges, None with one.

    Args:
        terms: number of edges that are not ``none``.
        input_: shape that its first edge reads.
        output: shape of the node.
    """
    if terms == 0:
        return make_op("zero", input_, output, stride=input_[1] // output[1])
    return None if terms == 1 else make_op("sum", output, output, terms=terms)


def expected(text: str, position: int, what: str, form: str) -> InvalidValue:
    """The error for a text that does not parse.

    Args:
        text: the whole text.
        position: of the first wrong character, from 0.
        what: what was expected there.
        form: an example of the notation.
    """
    found = repr(text[position : position + 20]) if position < len(text) else "the end"
    return InvalidValue(f"{text!r} does not parse: at position {position} {what} is expected, not {found}. {form}")
