"""Adapters of the singular vectors and values of a weight, ``W = U S VT``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.adapters.base import Factored, zeros


class _Spectral(Factored):
    """Keeps the largest singular values and vectors of the weight, and what is left without them."""

    def _rest(self, weight: Tensor) -> Tensor:
        return weight - self.u * self.s @ self.v


class SpectralAdditive(_Spectral):
    """``(U + A) S (VT + B)`` of the largest singular values (Zhang and Pilanci, "Spectral Adapter", NeurIPS 2024)."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(weight, rank, generator)
        self.a, self.b = zeros(*self.u.shape), zeros(*self.v.shape)

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        return self._rest(weight) + (self.u + self.a) * self.s @ (self.v + self.b)


class SpectralRotation(_Spectral):
    """``U R S(1 + g) QT VT``: rotations R and Q of the largest singular vectors, and scales of their values.

    A rotation is the Cayley transform ``(I - X)(I + X)^-1`` of a skew-symmetric matrix of rank x rank (Zhang and
    Pilanci 2024, section 3, "Spectral Adapter^R"; Qiu et al., "OFT", NeurIPS 2023).
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(weight, rank, generator)
        self.left, self.right, self.scale = zeros(rank, rank), zeros(rank, rank), zeros(rank)

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        u, v = self.u @ _cayley(self.left), _cayley(self.right).T @ self.v
        return self._rest(weight) + u * (self.s * (1 + self.scale)) @ v


class Gates(Factored):
    """``U z S VT``, gates z that drop directions: they are 0 or 1, in the training too.

    A gate is 1 where its parameter is positive; the gradient passes as if it were the logistic function (a
    straight-through estimator: Bengio et al., "Estimating or propagating gradients", 2013). There is a gate for each
    singular value; `rank` is not used.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(weight, rank, generator)
        # Close to 0: the smallest values, whose gates matter least, are the first to close.
        self.gate = nn.Parameter(0.1 + 0.4 * self.s / self.s.max().clamp(min=1e-12))

    def _cut(self, u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All of them."""
        return u, s, v

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        soft = torch.sigmoid(self.gate)
        z = (self.gate > 0).to(weight.dtype) + soft - soft.detach()
        return self.u * (z * self.s) @ self.v

    @property
    def found(self) -> int:
        """Number of directions that are kept."""
        return int((self.gate > 0).sum())


def _cayley(matrix: Tensor) -> Tensor:
    """The rotation of the skew-symmetric part of a square matrix."""
    skew, eye = matrix - matrix.T, torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    found: Tensor = torch.linalg.solve(eye + skew, eye - skew)
    return found
