"""Attention with several patterns of keys, on tokens of a fixed length.

Queries, keys and values have weights of their own, so that a narrower layer keeps the first heads; ONNX Runtime and
OpenVINO run three products 3 to 5% faster than one whose output is taken apart (197 tokens of width 192, 1 thread).
Masked scores get `MASKED` added instead of minus infinity: a token without keys then has a finite output, and half
precision does not overflow; the weight of a masked key is 0 in any precision.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.nn.residual import Layer, around
from hwnas.spaces import Op
from hwnas.spaces.kinds.tokens import tokens_of

MASKED = -1e4


def attention(op: Op) -> nn.Module:
    """Every token reads all."""
    return around(op, Attention(op))


def window_attention(op: Op) -> nn.Module:
    """Every token reads those at most a number of positions away."""
    return around(op, WindowAttention(op))


def block_attention(op: Op) -> nn.Module:
    """Every token reads those of its block."""
    return around(op, BlockAttention(op))


def linformer(op: Op) -> nn.Module:
    """Every token reads linear combinations of all."""
    return around(op, Linformer(op))


def lsh_attention(op: Op) -> nn.Module:
    """Every token reads those of similar direction."""
    return around(op, LshAttention(op))


class Attention(Layer):
    """Multi-head attention of all tokens; the base of the others, which differ in the keys that a query reads."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.length, width = tokens_of(op.input)
        self.heads, self.head = op.number("heads"), op.number("head")
        self.inner = self.heads * self.head
        for name in self._projections():
            self.add_module(name, nn.Linear(width, self.inner))
        self.out = nn.Linear(self.inner, width)

    @staticmethod
    def _projections() -> tuple[str, ...]:
        """Names of the linear layers before the scores."""
        return "q", "k", "v"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(n, length, width)`` -> the same shape."""
        y = self._attend(self._parts(x), mask)
        out: Tensor = self.out(y.transpose(1, 2).reshape(-1, self.length, self.inner))
        return out

    def read(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much the tokens read each token: the column means of the attention matrix.

        The output of a head is linear in its values, whatever the pattern: the mean weight of a value is the derivative
        of the mean output with respect to it. Of Linformer these are the weights of its projected attention, which may
        be negative.

        Args:
            x: ``(n, length, width)``.
            mask: ``(n, length)``, 1 for tokens and 0 for padding, whose outputs do not count.

        Returns:
            ``(n, heads, length)``; the sum over the tokens is 1, except for Linformer.
        """
        with torch.no_grad():
            parts = self._parts(x)
        with torch.inference_mode(False), torch.enable_grad():
            *fixed, values = (part.clone() for part in parts)  # tensors of an inference have no gradients
            mask = None if mask is None else mask.clone()
            there = values.new_ones(x.shape[:2]) if mask is None else mask
            y = self._attend([*fixed, values.requires_grad_()], mask)
            share = there / there.sum(dim=1, keepdim=True)
            [weights] = torch.autograd.grad((y[..., 0] * share.unsqueeze(1)).sum(), values)
        return weights[..., 0]

    def _parts(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values ``(n, heads, length, head)``; the values are the last."""
        shape = (-1, self.length, self.heads, self.head)
        return [self.get_submodule(name)(x).reshape(shape).transpose(1, 2) for name in self._projections()]

    def _attend(self, parts: list[Tensor], mask: Tensor | None) -> Tensor:
        """Queries, keys and values ``(n, heads, length, head)`` -> ``(n, heads, length, head)``."""
        q, k, v = parts
        bias = None if mask is None else penalty(mask).reshape(-1, 1, 1, self.length)
        if self.training:  # fused: the scores of all heads need no memory
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self._weighted(q, k, v, bias)  # its export has other reshapes than torch's fused attention

    def _weighted(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Values weighted with the softmax of the scores, along the last two axes of each."""
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(self.head))
        return (scores if bias is None else scores + bias).softmax(dim=-1) @ v


class WindowAttention(Attention):
    """Overlapping windows: a block of queries reads its own block of keys and both adjacent ones, within the window."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.window = op.number("window")
        self.blocks = -(-self.length // self.window)

    def _attend(self, parts: list[Tensor], mask: Tensor | None) -> Tensor:
        behind = self.blocks * self.window - self.length
        q, k, v = parts
        queries = padded(q, 0, behind).reshape(-1, self.heads, self.blocks, self.window, self.head)
        bias = window_bias(self.length, self.window).to(q)
        if mask is not None:
            rows = functional.pad(penalty(mask), (self.window, behind + self.window))
            rows = rows.reshape(-1, self.blocks + 2, self.window)
            read = torch.cat([rows.narrow(1, shift, self.blocks) for shift in range(3)], dim=2)
            bias = bias + read.reshape(-1, 1, self.blocks, 1, 3 * self.window)
        keys, values = (self._around(padded(each, self.window, behind + self.window)) for each in (k, v))
        y = self._weighted(queries, keys, values, bias)
        return y.reshape(-1, self.heads, self.blocks * self.window, self.head)[:, :, : self.length]

    def _around(self, x: Tensor) -> Tensor:
        """Each block with both adjacent ones.

        ``(n, heads, (blocks + 2) * window, head)`` -> ``(n, heads, blocks, 3 * window, head)``.
        """
        split = x.reshape(-1, self.heads, self.blocks + 2, self.window, self.head)
        return torch.cat([split.narrow(2, shift, self.blocks) for shift in range(3)], dim=3)


class BlockAttention(Attention):
    """Blocks of adjacent tokens that read each other only."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.block = op.number("block")
        self.blocks = -(-self.length // self.block)

    def _attend(self, parts: list[Tensor], mask: Tensor | None) -> Tensor:
        behind = self.blocks * self.block - self.length
        q, k, v = (
            padded(each, 0, behind).reshape(-1, self.heads, self.blocks, self.block, self.head) for each in parts
        )
        bias = block_bias(self.length, self.block).to(q) if behind else None
        if mask is not None:
            own = functional.pad(penalty(mask), (0, behind)).reshape(-1, 1, self.blocks, 1, self.block)
            bias = own if bias is None else bias + own
        y = self._weighted(q, k, v, bias)
        return y.reshape(-1, self.heads, self.blocks * self.block, self.head)[:, :, : self.length]


class Linformer(Attention):
    """Keys and values are linear combinations over the tokens, the same for all heads; padding counts as zeros."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        rank = op.number("rank")
        self.keys = nn.Linear(self.length, rank, bias=False)
        self.values = nn.Linear(self.length, rank, bias=False)

    def _attend(self, parts: list[Tensor], mask: Tensor | None) -> Tensor:
        q, k, v = parts
        if mask is not None:
            there = mask.reshape(-1, 1, self.length, 1)
            k, v = k * there, v * there
        fewer_k, fewer_v = self.keys(k.transpose(-1, -2)), self.values(v.transpose(-1, -2))
        return self._weighted(q, fewer_k.transpose(-1, -2), fewer_v.transpose(-1, -2), None)


class LshAttention(Attention):
    """Tokens are sorted by the bucket of their direction; a chunk reads itself and the one before, within its buckets.

    Queries are keys of another length, as in Reformer, with one round of hashing. A token also reads itself. Padding
    comes last in the order, so it does not move any token to another chunk.
    """

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.buckets, self.chunk = op.number("buckets"), op.number("chunk")
        self.chunks = -(-self.length // self.chunk)

    @staticmethod
    def _projections() -> tuple[str, ...]:
        return "q", "v"

    def _attend(self, parts: list[Tensor], mask: Tensor | None) -> Tensor:
        q, v = parts
        order, bucket = self._order(q, mask)
        behind = self.chunks * self.chunk - self.length
        index = order.unsqueeze(-1).expand(-1, -1, -1, self.head)
        q, v = (torch.gather(padded(each, 0, behind), 2, index) for each in (q, v))
        k = functional.normalize(q, dim=-1)
        q, k, v = (each.reshape(-1, self.heads, self.chunks, self.chunk, self.head) for each in (q, k, v))
        bucket = bucket.reshape(-1, self.heads, self.chunks, self.chunk)
        # The first chunk has none before it: a bucket that no token is in.
        read = torch.cat([functional.pad(bucket[:, :, :-1], (0, 0, 1, 0), value=-1), bucket], dim=3)
        bias = (bucket.unsqueeze(-1) != read.unsqueeze(-2)).to(q.dtype) * MASKED
        k, v = (self._and_before(each) for each in (k, v))
        y = self._weighted(q * math.sqrt(self.head), k, v, bias)
        back = torch.argsort(order, dim=2).unsqueeze(-1).expand(-1, -1, -1, self.head)
        y = torch.gather(y.reshape(-1, self.heads, self.chunks * self.chunk, self.head), 2, back)
        return y[:, :, : self.length]

    def _order(self, q: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions in the order of their buckets, and these buckets: two of ``(n, heads, chunks * chunk)``."""
        turned = q @ rotations(self.head, self.buckets).to(q)
        bucket = torch.cat([turned, -turned], dim=-1).argmax(dim=-1)
        if mask is not None:
            there = mask.unsqueeze(1).to(torch.int64)
            bucket = bucket * there + self.buckets * (1 - there)
        total = self.chunks * self.chunk
        bucket = functional.pad(bucket, (0, total - self.length), value=self.buckets + 1)
        # Equal buckets keep the order of the positions: all keys differ.
        keys = bucket * total + torch.arange(total).to(bucket)
        order = torch.argsort(keys, dim=2)
        return order, torch.gather(bucket, 2, order)

    def _and_before(self, x: Tensor) -> Tensor:
        """Each chunk behind the one before it: ``(n, heads, chunks, chunk, head)`` -> twice the chunk."""
        before = functional.pad(x[:, :, :-1], (0, 0, 0, 0, 1, 0))
        return torch.cat([before, x], dim=3)


def penalty(mask: Tensor) -> Tensor:
    """What is added to scores: 0 for tokens, `MASKED` for padding; ``(n, length)``, as the mask."""
    return (1 - mask) * MASKED


def padded(x: Tensor, before: int, behind: int) -> Tensor:
    """Zeros around the axis before the last one."""
    return functional.pad(x, (0, 0, before, behind)) if before or behind else x


@cache
@torch.inference_mode(False)  # a cached tensor of an evaluation could not be trained with
def window_bias(length: int, window: int) -> Tensor:
    """What is added to the scores of windows, ``(blocks, window, 3 * window)``: 0 for keys that a query reads."""
    blocks = -(-length // window)
    block = torch.arange(blocks).view(-1, 1, 1) * window
    query = block + torch.arange(window).view(1, -1, 1)
    key = block - window + torch.arange(3 * window).view(1, 1, -1)
    read = ((query - key).abs() <= window) & (key >= 0) & (key < length)
    return (~read).float() * MASKED


@cache
@torch.inference_mode(False)  # a cached tensor of an evaluation could not be trained with
def block_bias(length: int, block: int) -> Tensor:
    """What is added to the scores of blocks, ``(blocks, 1, block)``: 0 for keys, `MASKED` behind the end."""
    places = torch.arange(-(-length // block) * block).view(-1, 1, block)
    return (places >= length).float() * MASKED


@cache
@torch.inference_mode(False)  # a cached tensor of an evaluation could not be trained with
def rotations(head: int, buckets: int) -> Tensor:
    """Directions of the hash, ``(head, buckets / 2)``: a token is in the bucket of the direction nearest to it.

    The same for all layers, so that archs share them. The first heads and buckets of a larger layer are others.
    """
    generator = torch.Generator().manual_seed(20_261)
    return torch.randn(head, buckets // 2, generator=generator)
