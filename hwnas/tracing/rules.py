"""How each operator of torch's export relates the dimensions of its inputs and its output.

An operator without a rule is kept as it is, and what it reads cannot be narrower: so a rule is needed for what should
become smaller, and never for a correct result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hwnas.tracing.dims import Dim, Dims, Groups, Piece, batch, constant


@dataclass(frozen=True, slots=True)
class Read:
    """An input or weight that an operator reads.

    Attributes:
        name: of the value or the weight.
        shape: in the trace.
        dims: its dimensions.
        weight: whether it is a weight.
    """

    name: str
    shape: tuple[int, ...]
    dims: Dims
    weight: bool = False


@dataclass(frozen=True, slots=True)
class Sized:
    """An argument that depends on widths: the size of a dimension, or of several.

    Attributes:
        dims: the dimensions; one of a batch is written as -1.
        single: whether the argument is one number instead of a list.
    """

    dims: Dims
    single: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What an operator makes.

    Attributes:
        dims: of its output, or of each output.
        args: position of an argument that depends on widths -> its value.
        weights: name of a weight -> its dimensions.
    """

    dims: Dims | list[Dims]
    args: dict[int, Sized]
    weights: dict[str, Dims]


class Call:
    """One use of an operator in the trace.

    Args:
        groups: of the network.
        name: of the node.
        args: arguments; values and weights as `Read`.
        shapes: of the outputs in the trace.
        several: whether it has several outputs.
    """

    def __init__(
        self, groups: Groups, name: str, args: Sequence[Any], shapes: Sequence[tuple[int, ...]], *, several: bool
    ) -> None:
        self.groups, self.name, self.args = groups, name, list(args)
        self.shapes, self.several = shapes, several

    @property
    def reads(self) -> list[Read]:
        """All values and weights that it reads."""
        found: list[Read] = []
        for arg in self.args:
            found += [each for each in (arg if isinstance(arg, list | tuple) else [arg]) if isinstance(each, Read)]
        return found

    def arg(self, place: int, default: Any = None) -> Any:  # noqa: ANN401 (torch's arguments have any type)
        """An argument, or its default."""
        return self.args[place] if place < len(self.args) else default

    def axis(self, place: int, rank: int, default: int = 0) -> int:
        """An argument that is an axis, from 0."""
        found: int = self.arg(place, default)
        return found % rank

    def freeze(self, *dims: Dim) -> None:
        """Note that dimensions cannot be narrower because of this operator."""
        self.groups.freeze(dims, self.name)

    def made(
        self,
        dims: Dims | list[Dims],
        args: dict[int, Sized] | None = None,
        weights: dict[str, Dims] | None = None,
    ) -> Made:
        """The result of a rule."""
        return Made(dims, args or {}, weights or {})


Rule: TypeAlias = Callable[[Call], Made]


def unknown(call: Call) -> Made:
    """An operator without a rule: nothing that it reads can be narrower."""
    for read in call.reads:
        call.freeze(*read.dims)
    images = {dim.pieces[0].width for read in call.reads for dim in read.dims if dim.batch}
    outputs = [
        tuple(batch(size) if i == 0 and size in images else constant(size) for i, size in enumerate(shape))
        for shape in call.shapes
    ]
    return call.made(outputs if call.several else outputs[0])


def same(call: Call) -> Made:
    """Element by element, with one tensor."""
    return call.made(call.reads[0].dims)


def broadcast(call: Call) -> Made:
    """Element by element, with several tensors."""
    reads = call.reads
    rank = max(len(read.dims) for read in reads)
    dims: list[Dim] = []
    for axis in range(-rank, 0):
        here = [read.dims[axis] for read in reads if len(read.dims) >= -axis and read.shape[axis] != 1]
        found = here[0] if here else next(read.dims[axis] for read in reads if len(read.dims) >= -axis)
        for other in here[1:]:
            found = call.groups.unify(found, other, call.name)
        dims.append(found)
    return call.made(tuple(dims))


def convolution(call: Call) -> Made:
    """``(input, weight, bias, stride, padding, dilation, groups)``."""
    x, weight, bias, parts = call.arg(0), call.arg(1), call.arg(2), call.arg(6, 1)
    groups, channels = call.groups, x.dims[1]
    spatial = tuple(map(constant, weight.shape[2:]))
    args: dict[int, Sized] = {}
    if parts == 1:
        made, read = groups.new(weight.shape[0], weight.name, made=True), channels
    else:
        made, read, count = _grouped(call, channels, parts, weight.shape[0])
        args[6] = Sized((count,), single=True)
    weights = {weight.name: (made, read, *spatial)}
    if isinstance(bias, Read):
        weights[bias.name] = (made,)
    return call.made((x.dims[0], made, *map(constant, call.shapes[0][2:])), args, weights)


def _grouped(call: Call, channels: Dim, parts: int, made: int) -> tuple[Dim, Dim, Dim]:
    """The outputs of a grouped convolution, what each of its parts reads, and the number of parts."""
    inside, width = call.groups.size(channels) // parts, made // parts
    if inside == 1:  # each channel alone, whatever they consist of
        found = call.groups.found(channels)
        return Dim(tuple(Piece(each.group, each.width * width) for each in found.pieces)), constant(1), found
    split = call.groups.split(channels, (parts, inside), unit=0)
    if split is None or call.groups.found(split[0]).fixed:
        call.freeze(channels)
        return constant(made), constant(inside), constant(parts)
    [unit] = call.groups.found(split[0]).pieces
    return Dim((Piece(unit.group, width),)), constant(inside), Dim((Piece(unit.group, 1),))


def linear(call: Call) -> Made:
    """``(input, weight, bias)``."""
    x, weight, bias = call.arg(0), call.arg(1), call.arg(2)
    made = call.groups.new(weight.shape[0], weight.name, made=True)
    weights = {weight.name: (made, x.dims[-1])}
    if isinstance(bias, Read):
        weights[bias.name] = (made,)
    return call.made((*x.dims[:-1], made), weights=weights)


def batch_norm(call: Call) -> Made:
    """``(input, weight, bias, mean, variance, …)``."""
    x = call.arg(0)
    weights = {each.name: (x.dims[1],) for each in call.args[1:5] if isinstance(each, Read)}
    return call.made([x.dims, (), ()] if call.several else x.dims, weights=weights)


def layer_norm(call: Call) -> Made:
    """``(input, normalized_shape, weight, bias, eps)``."""
    x, sides = call.arg(0), len(call.arg(1))
    weights = {each.name: x.dims[-sides:] for each in call.args[2:4] if isinstance(each, Read)}
    return call.made(x.dims, {1: Sized(x.dims[-sides:])}, weights)


def pooled(call: Call) -> Made:
    """Pooling and resizing of images: the channels stay."""
    x = call.reads[0]
    keep = len(x.dims) - 2 if len(x.dims) > 3 else 1
    return call.made((*x.dims[:keep], *map(constant, call.shapes[0][keep:])))


def padded(call: Call) -> Made:
    """``(input, pad, …)``: padding of dimensions that do not change."""
    x = call.arg(0)
    touched = -(-len(call.arg(1)) // 2)
    for axis in range(len(x.dims) - touched, len(x.dims)):
        if call.shapes[0][axis] != x.shape[axis]:
            call.freeze(x.dims[axis])
    kept = [
        dim if size == before else constant(size)
        for dim, size, before in zip(x.dims, call.shapes[0], x.shape, strict=True)
    ]
    return call.made(tuple(kept))


def reduced(call: Call) -> Made:
    """``(input, dims, keepdim)``: means and sums."""
    x = call.arg(0)
    given = call.arg(1)
    axes = {axis % len(x.dims) for axis in ([given] if isinstance(given, int) else given or range(len(x.dims)))}
    kept = [constant(1) if i in axes else dim for i, dim in enumerate(x.dims) if i not in axes or call.arg(2, False)]
    return call.made(tuple(kept))


def viewed(call: Call) -> Made:
    """``(input, size)``: each dimension is kept, split, or joined with others."""
    x = call.arg(0)
    found = _view(call.groups, x.dims, x.shape, call.shapes[0])
    if found is None:
        return unknown_view(call)
    return call.made(found, {1: Sized(found)})


def unknown_view(call: Call) -> Made:
    """A view that mixes dimensions."""
    call.freeze(*call.arg(0).dims)
    made = unknown(call)
    assert isinstance(made.dims, tuple)
    return call.made(made.dims, {1: Sized(made.dims)})


def _view(groups: Groups, dims: Dims, before: Sequence[int], after: Sequence[int]) -> Dims | None:
    """The dimensions of a view, from equal products of neighbouring sizes."""
    made: list[Dim] = []
    i = j = 0
    while i < len(before) or j < len(after):
        i2, j2 = min(i + 1, len(before)), min(j + 1, len(after))
        while math.prod(before[i:i2]) != math.prod(after[j:j2]):
            if math.prod(before[i:i2]) < math.prod(after[j:j2]):
                if i2 == len(before):
                    return None
                i2 += 1
            else:
                if j2 == len(after):
                    return None
                j2 += 1
        if i2 == i:  # a new axis of one element
            made += [constant(1)] * (j2 - j)
        elif j2 == j:  # an axis of one element goes
            pass
        elif i2 - i == 1 and j2 - j == 1:
            made.append(dims[i])
        else:
            joined = dims[i] if i2 - i == 1 else groups.merge(dims[i:i2])
            parts = None if joined is None else [joined] if j2 - j == 1 else groups.split(joined, after[j:j2])
            if parts is None:
                return None
            made += parts
        i, j = i2, j2
    return tuple(made)


def transposed(call: Call) -> Made:
    """``(input, one axis, other axis)``."""
    x = call.arg(0)
    order = list(range(len(x.dims)))
    one, other = call.axis(1, len(order)), call.axis(2, len(order))
    order[one], order[other] = order[other], order[one]
    return call.made(tuple(x.dims[i] for i in order))


def permuted(call: Call) -> Made:
    """``(input, order)``."""
    x = call.arg(0)
    return call.made(tuple(x.dims[axis % len(x.dims)] for axis in call.arg(1)))


def unsqueezed(call: Call) -> Made:
    """``(input, axis)``."""
    x = call.arg(0)
    axis = call.axis(1, len(x.dims) + 1)
    return call.made((*x.dims[:axis], constant(1), *x.dims[axis:]))


def squeezed(call: Call) -> Made:
    """``(input, axis or axes)``."""
    x = call.arg(0)
    given = call.arg(1, range(len(x.dims)))
    axes = {axis % len(x.dims) for axis in ([given] if isinstance(given, int) else given)}
    return call.made(tuple(dim for i, dim in enumerate(x.dims) if i not in axes or x.shape[i] != 1))


def expanded(call: Call) -> Made:
    """``(input, size)``; an axis of one element may become one of the number of images."""
    x = call.arg(0)
    given, rank = call.arg(1), len(call.shapes[0])
    dims = [constant(1)] * (rank - len(x.dims)) + list(x.dims)
    shape = [1] * (rank - len(x.dims)) + list(x.shape)
    made = []
    for axis, (dim, size, after) in enumerate(zip(dims, shape, call.shapes[0], strict=True)):
        images = isinstance(given[axis], Images)
        made.append(dim if size == after else batch(after) if images else constant(after))
    return call.made(tuple(made))


class Images(int):
    """The number of images in the trace, as an argument."""


def concatenated(call: Call) -> Made:
    """``(tensors, axis)``."""
    reads = call.arg(0)
    axis = call.axis(1, len(reads[0].dims))
    dims = list(reads[0].dims)
    for other in range(len(dims)):
        if other != axis:
            for read in reads[1:]:
                dims[other] = call.groups.unify(dims[other], read.dims[other], call.name)
    pieces = tuple(piece for read in reads for piece in read.dims[axis].pieces)
    dims[axis] = Dim(pieces)
    return call.made(tuple(dims))


def unbound(call: Call) -> Made:
    """``(input, axis)``: one output for each element of an axis."""
    x = call.arg(0)
    axis = call.axis(1, len(x.dims))
    call.freeze(x.dims[axis])
    return call.made([(*x.dims[:axis], *x.dims[axis + 1 :])] * len(call.shapes))


def selected(call: Call) -> Made:
    """``(input, axis, index)``."""
    x = call.arg(0)
    axis = call.axis(1, len(x.dims))
    call.freeze(x.dims[axis])
    return call.made((*x.dims[:axis], *x.dims[axis + 1 :]))


def sliced(call: Call) -> Made:
    """``(input, axis, start, end, step)``."""
    x = call.arg(0)
    axis = call.axis(1, len(x.dims))
    if call.shapes[0][axis] == x.shape[axis]:
        return call.made(x.dims)
    call.freeze(x.dims[axis])
    return call.made((*x.dims[:axis], constant(call.shapes[0][axis]), *x.dims[axis + 1 :]))


def divided(call: Call) -> Made:
    """``(input, sizes, axis)``: parts of one axis, such as the value and the gate of a gated layer."""
    x = call.arg(0)
    axis = call.axis(2, len(x.dims))
    sizes = [shape[axis] for shape in call.shapes]
    parts = _parts(call, x.dims[axis], sizes)
    dims = [(*x.dims[:axis], part, *x.dims[axis + 1 :]) for part in parts]
    given = Sized((parts[0],), single=True) if isinstance(call.arg(1), int) else Sized(tuple(parts))
    return call.made(dims, {1: given})


def _parts(call: Call, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
    """A dimension in parts of given sizes."""
    groups, found = call.groups, call.groups.found(dim)
    if len(found.pieces) == 1 and found.pieces[0].group >= 0 and found.pieces[0].width == 1:
        group = groups.every[found.pieces[0].group]
        fresh = [groups.new(size, group.name, made=False) for size in sizes]
        groups.bind(found.pieces[0].group, [part.pieces[0] for part in fresh])
        return fresh
    parts, pieces = [], list(found.pieces)
    for size in sizes:
        taken = []
        while pieces and sum(map(groups.elements, taken)) < size:
            taken.append(pieces.pop(0))
        if sum(map(groups.elements, taken)) != size:
            call.freeze(dim)
            return [constant(each) for each in sizes]
        parts.append(Dim(tuple(taken)))
    return parts


def attention(call: Call) -> Made:
    """``(query, key, value, …)``, each (…, heads, tokens, width): the width of a head stays, its scale depends on it."""
    query, key, value = call.args[:3]
    lead = []
    for axis in range(len(query.dims) - 2):
        dim = call.groups.unify(query.dims[axis], key.dims[axis], call.name)
        lead.append(call.groups.unify(dim, value.dims[axis], call.name))
    call.freeze(query.dims[-1], key.dims[-1])
    for extra in call.args[3:]:
        if isinstance(extra, Read):
            for dim in extra.dims[:-2]:
                call.freeze(dim)
            if len(extra.dims) > 2 and extra.shape[-3] != 1:
                call.freeze(lead[-1])
    return call.made((*lead, query.dims[-2], value.dims[-1]))


def product(call: Call) -> Made:
    """``(one, other)``: a matrix product of two values, in batches."""
    one, other = call.args[:2]
    if len(one.dims) != len(other.dims) or len(one.dims) < 2:
        return unknown(call)
    lead = [
        call.groups.unify(a, b, call.name)
        if size == len_b
        else (a if len_b == 1 else b)
        for a, b, size, len_b in zip(one.dims[:-2], other.dims[:-2], one.shape[:-2], other.shape[:-2], strict=True)
    ]
    call.groups.unify(one.dims[-1], other.dims[-2], call.name)
    return call.made((*lead, one.dims[-2], other.dims[-1]))


def normalised(call: Call) -> Made:
    """``(input, axis, …)``: softmax; over an axis that could be narrower it would change its scale."""
    x = call.arg(0)
    call.freeze(x.dims[call.axis(1, len(x.dims), -1)])
    return call.made(x.dims)


_UNARY = (
    *("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "gelu", "tanh", "elu", "leaky_relu", "mish"),
    *("softplus", "clone", "alias", "detach", "contiguous", "neg", "exp", "sqrt", "rsqrt", "abs", "dropout"),
    *("clamp", "relu6", "roll", "erf", "reciprocal", "log", "selu", "celu", "hardshrink", "square"),
)
_SCALARS = ("add.Scalar", "sub.Scalar", "mul.Scalar", "div.Scalar", "pow.Tensor_Scalar", "rsub.Scalar")
_BINARY = ("add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default")
_POOLS = (
    *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d.vec"),
    *("upsample_bilinear2d.vec", "upsample_bicubic2d.vec", "_adaptive_avg_pool2d", "max_pool2d_with_indices"),
)
RULES: dict[str, Rule] = {
    **{f"{name}.default": same for name in _UNARY},
    **dict.fromkeys(_SCALARS, same),
    **dict.fromkeys(_BINARY, broadcast),
    **{name if "." in name else f"{name}.default": pooled for name in _POOLS},
    "conv1d.default": convolution,
    "conv2d.default": convolution,
    "linear.default": linear,
    "_native_batch_norm_legit_no_training.default": batch_norm,
    "layer_norm.default": layer_norm,
    "pad.default": padded,
    "constant_pad_nd.default": padded,
    "mean.dim": reduced,
    "sum.dim_IntList": reduced,
    "view.default": viewed,
    "_unsafe_view.default": viewed,
    "reshape.default": viewed,
    "transpose.int": transposed,
    "permute.default": permuted,
    "unsqueeze.default": unsqueezed,
    "squeeze.dim": squeezed,
    "squeeze.dims": squeezed,
    "expand.default": expanded,
    "cat.default": concatenated,
    "unbind.int": unbound,
    "select.int": selected,
    "slice.Tensor": sliced,
    "split_with_sizes.default": divided,
    "split.Tensor": divided,
    "scaled_dot_product_attention.default": attention,
    "matmul.default": product,
    "bmm.default": product,
    "softmax.int": normalised,
    "_softmax.default": normalised,
}
