"""How each operator of torch's export relates the dimensions of its inputs and its output.

An operator without a rule is kept as it is, and what it reads cannot be narrower: so a rule is needed for what should
become smaller, and never for a correct result.
"""

from __future__ import annotations

from hwnas.tracing import views
from hwnas.tracing.calls import Call, Made, Read, Rule, Sized, unknown
from hwnas.tracing.dims import Dim, Dims, Piece, constant


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
    if not _is_layer(x, weight, bias):
        return unknown(call)
    groups, channels = call.groups, x.dims[1]
    call.freeze(*x.dims[2:])  # positions, whatever they were before
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


def _is_layer(x: object, *weights: object) -> bool:
    """Whether weights themselves, and not something computed from them, work on a value."""
    reads = [each for each in weights if isinstance(each, Read)]
    return isinstance(x, Read) and not x.weight and all(each.weight for each in reads)


def linear(call: Call) -> Made:
    """``(input, weight, bias)``."""
    x, weight, bias = call.arg(0), call.arg(1), call.arg(2)
    if not _is_layer(x, weight, bias):
        return unknown(call)
    made = call.groups.new(weight.shape[0], weight.name, made=True)
    weights: dict[str, Dims] = {weight.name: (made, x.dims[-1])}
    if isinstance(bias, Read):
        weights[bias.name] = (made,)
    return call.made((*x.dims[:-1], made), weights=weights)


def batch_norm(call: Call) -> Made:
    """``(input, weight, bias, mean, variance, …)``."""
    x = call.arg(0)
    if not _is_layer(x, *call.args[1:5]):
        return unknown(call)
    weights: dict[str, Dims] = {each.name: (x.dims[1],) for each in call.args[1:5] if isinstance(each, Read)}
    return call.made([x.dims, (), ()] if call.several else x.dims, weights=weights)


def layer_norm(call: Call) -> Made:
    """``(input, normalized_shape, weight, bias, eps)``."""
    x, sides = call.arg(0), len(call.arg(1))
    if not _is_layer(x, *call.args[2:4]):
        return unknown(call)
    weights = {each.name: x.dims[-sides:] for each in call.args[2:4] if isinstance(each, Read)}
    return call.made(x.dims, {1: Sized(x.dims[-sides:])}, weights)


def pooled(call: Call) -> Made:
    """Pooling and resizing of images: the channels stay."""
    x = call.reads[0]
    keep = len(x.dims) - 2 if len(x.dims) > 3 else 1
    call.freeze(*x.dims[keep:])
    dims = (*x.dims[:keep], *map(constant, call.shapes[0][keep:]))
    return call.made([dims] * len(call.shapes) if call.several else dims)


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


def attention(call: Call) -> Made:
    """``(query, key, value, …)``, each ``(…, heads, tokens, width)``.

    The width of a head stays, because the scale of the scores depends on it.
    """
    query, key, value = call.args[:3]
    lead = []
    for axis in range(len(query.dims) - 2):
        dim = call.groups.unify(query.dims[axis], key.dims[axis], call.name)
        lead.append(call.groups.unify(dim, value.dims[axis], call.name))
    call.freeze(query.dims[-1], key.dims[-1])
    call.groups.unify(key.dims[-2], value.dims[-2], call.name)
    for extra in call.args[3:]:
        if isinstance(extra, Read):  # a mask of scores
            call.freeze(*extra.dims, query.dims[-2], key.dims[-2])
            if len(extra.dims) > 2 and extra.shape[-3] != 1:
                call.freeze(lead[-1])
    return call.made((*lead, query.dims[-2], value.dims[-1]))


def product(call: Call) -> Made:
    """``(one, other)``: a matrix product of two values, in batches."""
    one, other = call.args[:2]
    if len(one.dims) != len(other.dims) or len(one.dims) < 2:
        return unknown(call)
    lead = [
        call.groups.unify(a, b, call.name) if size == len_b else (a if len_b == 1 else b)
        for a, b, size, len_b in zip(one.dims[:-2], other.dims[:-2], one.shape[:-2], other.shape[:-2], strict=True)
    ]
    call.groups.unify(one.dims[-1], other.dims[-2], call.name)
    return call.made((*lead, one.dims[-2], other.dims[-1]))


def rolled(call: Call) -> Made:
    """``(input, shifts, axes)``: elements of the rolled axes keep their places."""
    x = call.arg(0)
    axes = call.arg(2, [])
    call.freeze(*(x.dims[axis] for axis in (axes or range(len(x.dims)))))
    return call.made(x.dims)


def normalised(call: Call) -> Made:
    """``(input, axis, …)``: softmax; over an axis that could be narrower it would change its scale."""
    x = call.arg(0)
    call.freeze(x.dims[call.axis(1, len(x.dims), -1)])
    return call.made(x.dims)


_UNARY = (
    *("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "gelu", "tanh", "elu", "leaky_relu", "mish"),
    *("softplus", "clone", "alias", "detach", "contiguous", "neg", "exp", "sqrt", "rsqrt", "abs", "dropout"),
    *("clamp", "relu6", "erf", "reciprocal", "log", "selu", "celu", "hardshrink", "square"),
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
    "view.default": views.viewed,
    "_unsafe_view.default": views.viewed,
    "reshape.default": views.viewed,
    "transpose.int": views.transposed,
    "permute.default": views.permuted,
    "unsqueeze.default": views.unsqueezed,
    "squeeze.dim": views.squeezed,
    "squeeze.dims": views.squeezed,
    "expand.default": views.expanded,
    "cat.default": views.concatenated,
    "unbind.int": views.unbound,
    "select.int": views.selected,
    "slice.Tensor": views.sliced,
    "split_with_sizes.default": views.divided,
    "split.Tensor": views.divided,
    "scaled_dot_product_attention.default": attention,
    "matmul.default": product,
    "bmm.default": product,
    "_to_copy.default": same,
    "to.dtype": same,
    "roll.default": rolled,
    "softmax.int": normalised,
    "_softmax.default": normalised,
}
