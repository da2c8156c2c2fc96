"""What an adapter is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue


class Adapter(nn.Module, ABC):
    """A change of one weight matrix, of few parameters θ: ``merge(W) = W'``.

    ``merge`` is a function of the weight before the training and of θ, so merging twice gives the same weight. The
    parameters of the module are θ; at first ``merge(W)`` is W, up to rounding, unless the method says otherwise.

    Args:
        weight: ``(out, in)``, before the training.
        rank: size of the change; what it means depends on the method.

    Raises:
        InvalidValue: the rank exceeds the matrix.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        if not 1 <= rank <= min(weight.shape):
            raise InvalidValue(
                f"rank {rank} does not fit a matrix of {weight.shape[0]} x {weight.shape[1]}; it is 1 to "
                f"{min(weight.shape)}"
            )
        self.rank = rank

    @abstractmethod
    def merge(self, weight: Tensor) -> Tensor:
        """The adapted weight ``(out, in)``, differentiable in θ."""

    def advance(self, gradient: Tensor, learning_rate: float) -> None:
        """Make a step of an adapter that trains itself; the others have an optimizer.

        Args:
            gradient: of the loss with respect to the adapted weight, ``(out, in)``.
            learning_rate: of the step.
        """

    @property
    def found(self) -> int | None:
        """The rank that the training found; None for a method with a fixed rank."""
        return None


class Factored(Adapter):
    """An adapter that keeps singular values and vectors of the weight before the training, ``W = U S VT``.

    Attributes:
        u, s, v: ``(out, kept)``, ``(kept,)`` and ``(kept, in)``, as `_cut` keeps them.
    """

    u: Tensor
    s: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, rank: int, _: torch.Generator) -> None:
        super().__init__(weight, rank)
        factors = torch.linalg.svd(weight.detach().double(), full_matrices=False)
        for name, tensor in zip("usv", self._cut(*factors), strict=True):
            self.register_buffer(name, tensor.to(weight.dtype).contiguous())

    def _cut(self, u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is kept of all singular values and vectors: the largest ones, as many as the rank."""
        return u[:, : self.rank], s[: self.rank], v[: self.rank]


def drawn(*shape: int, scale: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter of normal numbers."""
    return nn.Parameter(torch.randn(*shape, generator=generator) * scale)


def zeros(*shape: int) -> nn.Parameter:
    """A parameter of zeros."""
    return nn.Parameter(torch.zeros(*shape))
