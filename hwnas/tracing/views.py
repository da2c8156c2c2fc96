"""Rules of operators that move, join and split dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwnas.tracing.calls import Call, Images, Made, Sized, unknown
from hwnas.tracing.dims import Dim, Dims, Groups, Piece, batch, constant


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
    """The dimensions of a view, from equal products of adjacent sizes."""
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
    made, repeated = [], False
    for axis, (dim, size, after) in enumerate(zip(dims, shape, call.shapes[0], strict=True)):
        images = isinstance(given[axis], Images) and size != after
        repeated |= images
        made.append(dim if size == after else batch(after) if images else constant(after))
    if not repeated:
        return call.made(tuple(made), {1: Sized(tuple(made))})
    for dim, size in zip(made, given, strict=True):
        if size != -1:
            call.freeze(dim)  # its size is written down
    return call.made(tuple(made))


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
    together = any(read.dims[axis].batch for read in reads)
    dims[axis] = batch(sum(read.shape[axis] for read in reads)) if together else Dim(pieces)
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
        taken: list[Piece] = []
        while pieces and sum(map(groups.elements, taken)) < size:
            taken.append(pieces.pop(0))
        if sum(map(groups.elements, taken)) != size:
            call.freeze(dim)
            return [constant(each) for each in sizes]
        parts.append(Dim(tuple(taken)))
    return parts
