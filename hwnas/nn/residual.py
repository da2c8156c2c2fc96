"""The frame of a transformer's layers: residual connection, LayerNorm, padding."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from hwnas.spaces import Op
from hwnas.spaces.kinds.tokens import tokens_of


class Layer(nn.Module, ABC):
    """What a layer adds to its tokens: ``(n, length, width)`` -> the same shape."""

    @abstractmethod
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The outputs; `mask`, ``(n, length)``, is 1 for tokens and 0 for padding, None without padding."""


class Residual(nn.Module):
    """A layer with its residual connection and LayerNorm.

    Args:
        op: its attribute `norm` is the place of the LayerNorm: "pre", "post" or "none".
        body: the layer.
    """

    def __init__(self, op: Op, body: Layer) -> None:
        super().__init__()
        self.shape = op.input
        _, width = tokens_of(op.input)
        place = op["norm"]
        if place != "none":
            self.norm = nn.LayerNorm(width)
        self.pre, self.post = place == "pre", place == "post"
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> the same shape."""
        return self._around(x, None)

    def _around(self, x: Tensor, mask: Tensor | None) -> Tensor:
        image = len(self.shape) == 3
        tokens = x.flatten(2).transpose(1, 2) if image else x
        y: Tensor = tokens + self.body(self.norm(tokens) if self.pre else tokens, mask)
        if self.post:
            y = self.norm(y)
        return y.transpose(1, 2).reshape(-1, *self.shape) if image else y


class MaskedResidual(Residual):
    """As `Residual`, of tokens with padding."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """``(n, *op.input)`` and ``(n, length)``, 1 for tokens and 0 for padding -> ``(n, *op.input)``."""
        return self._around(x, mask)


def around(op: Op, body: Layer) -> nn.Module:
    """The module of an op: a layer with its residual connection, which reads a mask if the op does."""
    masked = len(op.inputs) > 1
    return MaskedResidual(op, body) if masked else Residual(op, body)


def without_padding(x: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens ``(n, length, width)`` with zeros for padding."""
    return x if mask is None else x * mask.unsqueeze(-1)
