"""Tokens: from images and from indices, layers over them, and classifiers of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.nn.residual import Layer, around, without_padding
from hwnas.spaces import Op
from hwnas.spaces.kinds.tokens import GATED, tokens_of

_PERIOD = 10_000.0


# -- from images and indices ---------------------------------------------------------------------------------------


class Patches(nn.Module):
    """Square patches of an image as tokens, perhaps with a class token before them, and their positions."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        patch, (length, width) = op.number("patch"), op.output
        self.grid = op.input[1] // patch, op.input[2] // patch
        self.patches = nn.Conv2d(op.input[0], width, patch, patch)
        self.has_first, self.kind, self.shape = bool(op["first"]), op["positions"], (length, width)
        if self.has_first:
            self.first = nn.Embedding(1, width)
        if self.kind == "learned":
            self.positions = nn.Embedding(length, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, height, width)`` -> ``(n, length, width)``."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        # The class token is added to a row of zeros: a concatenation would need the number of images.
        y = functional.pad(y, (0, 0, 1, 0)) if self.has_first else y
        length, width = self.shape
        if self.kind == "learned":
            y = y + self.positions.weight
        elif self.kind == "sinusoidal":
            table = grid_sinusoid(*self.grid, width)
            y = y + functional.pad(table, (0, 0, length - len(table), 0)).to(y)
        if self.has_first:
            y = y + functional.pad(self.first.weight, (0, 0, 0, length - 1))
        return y


def taken_patches(op: Op, largest: Op) -> Mapping[str, tuple[slice | Tensor, ...]]:
    """Positions of smaller images: the nearest ones of the largest image's grid."""
    if op["positions"] != "learned" or op.output[0] == largest.output[0]:
        return {}
    patch, first = op.number("patch"), op.number("first")
    nearest = [
        ((torch.arange(few) + 0.5) * (most / few)).floor().long()
        for few, most in ((op.input[i] // patch, largest.input[i] // patch) for i in (1, 2))
    ]
    rows = (nearest[0][:, None] * (largest.input[2] // patch) + nearest[1][None, :]).flatten() + first
    rows = torch.cat([torch.arange(first), rows])
    return {"positions.weight": (rows, slice(op.output[1]))}


class TokenEmbedding(nn.Module):
    """Vectors of tokens, and their positions."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.length, width = op.output
        self.tokens = nn.Embedding(op.number("vocabulary"), width)
        self.scale = math.sqrt(width) if op["scaled"] else 1.0
        self.kind, self.width = op["positions"], width
        if self.kind == "learned":
            self.positions = nn.Embedding(self.length, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(n, length)``, int64 -> ``(n, length, width)``."""
        y: Tensor = self.tokens(x)
        y = y * self.scale if self.scale != 1.0 else y
        if self.kind == "learned":
            y = y + self.positions.weight
        elif self.kind == "sinusoidal":
            y = y + sinusoid(self.length, self.width).to(y)
        return y


class Mask(nn.Module):
    """1 for tokens, 0 for padding, which is the token 0."""

    def __init__(self, op: Op) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``(n, length)``, int64 -> ``(n, length)``, float32."""
        return x.clamp(max=1).to(torch.float32)


@cache
@torch.inference_mode(False)  # a cached tensor of an evaluation could not be trained with
def sinusoid(length: int, width: int) -> Tensor:
    """Positions ``(length, width)`` (Vaswani et al. 2017, section 3.5).

    ``PE(p, 2i) = sin(p / 10000^(2i / width))`` and ``PE(p, 2i + 1) = cos(p / 10000^(2i / width))``.
    """
    places, steps = torch.arange(length).double(), torch.arange(0, width, 2).double()
    angles = places[:, None] / _PERIOD ** (steps / width)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width].float()


@cache
@torch.inference_mode(False)  # a cached tensor of an evaluation could not be trained with
def grid_sinusoid(height: int, width: int, channels: int) -> Tensor:
    """Positions of the pixels of a grid, row by row, ``(height * width, channels)``.

    The first half of the channels are those of the row (`sinusoid`), the second half those of the column.
    """
    half = channels // 2
    rows = sinusoid(height, half)[:, None].expand(-1, width, -1)
    columns = sinusoid(width, channels - half)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


# -- layers --------------------------------------------------------------------------------------------------------


def token_conv(op: Op) -> nn.Module:
    """Depthwise convolution over the tokens, then a linear layer."""
    return around(op, TokenConv(op))


def token_mix(op: Op) -> nn.Module:
    """A linear layer over the tokens, then one over the width."""
    return around(op, TokenMix(op))


def feed_forward(op: Op) -> nn.Module:
    """Linear layers with an activation between them, for each token alone."""
    return around(op, FeedForward(op))


class TokenConv(Layer):
    """Depthwise convolution over the tokens, padded by half the kernel, then a linear layer."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        (_, width), kernel = tokens_of(op.input), op.number("kernel")
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(n, length, width)`` -> the same shape."""
        y: Tensor = self.depthwise(without_padding(x, mask).transpose(1, 2))
        out: Tensor = self.out(y.transpose(1, 2))
        return out


def taken_conv(op: Op, largest: Op) -> Mapping[str, tuple[slice | Tensor, ...]]:
    """A smaller kernel is the centre of the largest one."""
    (_, width), kernel = tokens_of(op.input), op.number("kernel")
    start = (largest.number("kernel") - kernel) // 2
    return {"body.depthwise.weight": (slice(width), slice(1), slice(start, start + kernel))}


class TokenMix(Layer):
    """A linear layer over the tokens, the same for all channels, then one over the width."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        length, width = tokens_of(op.input)
        self.mix = nn.Linear(length, length)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(n, length, width)`` -> the same shape."""
        y: Tensor = self.mix(without_padding(x, mask).transpose(1, 2))
        out: Tensor = self.out(y.transpose(1, 2))
        return out


def _squared_relu(x: Tensor) -> Tensor:
    y = functional.relu(x)
    return y * y


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "relu2": _squared_relu,
}


class FeedForward(Layer):
    """``down(act(up(x)))``, or ``down(act(gate(x)) * up(x))`` with a gate."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        (_, width), hidden, act = tokens_of(op.input), op.number("hidden"), str(op["act"])
        self.gated, self.act = act in GATED, GATED.get(act, act)
        if self.gated:
            self.gate = nn.Linear(width, hidden)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(n, length, width)`` -> the same shape."""
        act = _ACTIVATIONS[self.act]
        inner = act(self.gate(x)) * self.up(x) if self.gated else act(self.up(x))
        y: Tensor = self.down(inner)
        return y


# -- classifiers ---------------------------------------------------------------------------------------------------


def pooled_linear(op: Op) -> nn.Module:
    """LayerNorm, the mean of all tokens or the first one, linear."""
    return (MaskedPooledLinear if len(op.inputs) > 1 else PooledLinear)(op)


class PooledLinear(nn.Module):
    """LayerNorm, the mean of all tokens or the first one, linear."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        _, width = op.input
        self.has_norm, self.mean = op["norm"] != "none", op["pool"] == "mean"
        if self.has_norm:
            self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, op.output[0])

    def forward(self, x: Tensor) -> Tensor:
        """``(n, length, width)`` -> ``(n, classes)``."""
        return self._pooled(x, None)

    def _pooled(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x if self.mean else x[:, 0]
        x = self.norm(x) if self.has_norm else x
        if self.mean and mask is not None:
            x = without_padding(x, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        elif self.mean:
            x = x.mean(dim=1)
        y: Tensor = self.linear(x)
        return y


class MaskedPooledLinear(PooledLinear):
    """As `PooledLinear`, of tokens with padding."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """``(n, length, width)`` and ``(n, length)``, 1 for tokens and 0 for padding -> ``(n, classes)``."""
        return self._pooled(x, mask)
