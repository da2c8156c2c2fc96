"""Parts of shared tensors as one node of the autograd graph.

One node per slice and product adds about a sixth to the step time of the smallest networks; one node for the whole
network adds a little less (`benchmarks/elastic_overhead.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

Channels: TypeAlias = "tuple[slice | Tensor, ...]"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a tensor.

    Attributes:
        channels: an index of the tensor: the elements along each axis (`crossed`).
        steps: sides of a kernel before and after each transformation.
    """

    channels: Channels
    steps: tuple[tuple[int, int], ...] = ()


def crossed(channels: Channels) -> Channels:
    """An index that takes some elements along each axis, independently of the other axes.

    Args:
        channels: for each axis a slice, or the places of the elements, ``(elements,)``.
    """
    listed = [axis for axis, one in enumerate(channels) if isinstance(one, Tensor)]
    if len(listed) < 2:
        return channels  # torch combines one list with slices in this way
    found: list[slice | Tensor] = list(channels)
    first, last = listed[0], listed[-1]
    for axis in range(first, last + 1):
        one = channels[axis]
        if not isinstance(one, Tensor):
            one = torch.arange(one.stop)
        shape = [1] * (last - first + 1)
        shape[axis - first] = -1
        found[axis] = one.view(shape)
    return tuple(found)


def take(parts: Sequence[Part], tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Take parts of tensors, differentiably.

    Args:
        parts: the parts.
        tensors: for each part its tensor, followed by the matrices ``(side², side²)`` of its steps: the centre of a
            kernel, as a row, times the transposed matrix is the smaller kernel (Cai et al. 2020).
    """
    device = tensors[0].device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return take(parts, tensors)
    return _Take.apply(parts, *tensors)  # type: ignore[no-any-return, no-untyped-call]


class _Context(FunctionCtx):
    taken: list[tuple[Tensor, Channels, _Shrunk | None]]


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, parts: Sequence[Part], *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        taken: list[Tensor] = []
        ctx.taken = []
        for part in parts:
            whole = next(given)
            tensor = whole[part.channels]
            shrunk = _Shrunk(tensor, part.steps, list(islice(given, len(part.steps)))) if part.steps else None
            taken.append(shrunk.kernels() if shrunk else tensor)
            ctx.taken.append((whole, part.channels, shrunk))
        return tuple(taken)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None]
        for (whole, channels, shrunk), gradient in zip(ctx.taken, gradients, strict=True):
            larger, matrices = shrunk.backward(gradient) if shrunk else (gradient, [])
            full = torch.zeros_like(whole)
            full[channels] = larger
            found += [full, *matrices]
        return tuple(found)


class _Shrunk:
    """Transform kernels to smaller ones.

    The matrices of all steps are multiplied first, so that one product is applied to the channels.
    """

    def __init__(self, larger: Tensor, steps: Sequence[tuple[int, int]], matrices: Sequence[Tensor]) -> None:
        (before, side), *others = steps
        self.steps, self.matrices, self.inputs = steps, matrices, larger.shape[1]
        self.read = larger.reshape(-1, before * before).index_select(1, _centre(before, side, larger.device))
        self.products = [matrices[0]]
        for step, matrix in zip(others, matrices[1:], strict=True):
            side = step[1]
            self.products.append(matrix @ self.products[-1].index_select(0, _centre(*step, larger.device)))
        self.side = side

    def kernels(self) -> Tensor:
        """Return the smaller kernels without storing them: a node that references its own output is never freed."""
        return (self.read @ self.products[-1].T).view(-1, self.inputs, self.side, self.side)

    def backward(self, gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the larger kernels and of the matrices."""
        gradient = gradient.reshape(-1, self.side * self.side)
        read, product = gradient @ self.products[-1], gradient.T @ self.read
        found: list[Tensor] = []
        for i in reversed(range(1, len(self.steps))):
            centre, before = _centre(*self.steps[i], gradient.device), self.products[i - 1]
            found.insert(0, product @ before.index_select(0, centre).T)
            product = torch.zeros_like(before).index_copy_(0, centre, self.matrices[i].T @ product)
        side, after = self.steps[0]
        larger = read.new_zeros(len(read), side * side).index_copy_(1, _centre(side, after, read.device), read)
        return larger.view(-1, self.inputs, side, side), [product, *found]


@cache
def _centre(before: int, after: int, device: torch.device) -> Tensor:
    """Indices of the centre pixels of a square image, row by row."""
    margin = (before - after) // 2
    pixels = torch.arange(before * before, device=device).view(before, before)
    return pixels[margin : margin + after, margin : margin + after].flatten()
