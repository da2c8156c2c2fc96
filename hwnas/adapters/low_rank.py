"""Adapters that add a product of thin matrices."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hwnas.adapters.base import Adapter, drawn, zeros


class Lora(Adapter):
    """``W + B A``, A of rank x in, B of out x rank (Hu et al., "LoRA", ICLR 2022, section 4.1)."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(weight, rank)
        out, into = weight.shape
        self.a, self.b = drawn(rank, into, scale=1 / math.sqrt(into), generator=generator), zeros(out, rank)

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        return weight + self.b @ self.a


class Dora(Lora):
    """Direction and magnitude apart: ``m (W + B A) / |W + B A|``, row by row (Liu et al., "DoRA", ICML 2024, eq. 5).

    As in the paper's section 4.3, the norm is a constant for the gradient.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(weight, rank, generator)
        self.magnitude = nn.Parameter(weight.detach().norm(dim=1, keepdim=True))

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        changed = super().merge(weight)
        adapted: Tensor = self.magnitude * changed / changed.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
        return adapted


class Kronecker(Adapter):
    """``W + sum of A_i x (s_i t_i)``, a sum of Kronecker products (Karimi Mahabadi et al., "Compacter", NeurIPS 2021).

    The n matrices A_i are n x n, and s_i t_i has the rank 1; n is the largest number up to the rank that divides both
    dimensions of W. Unlike in the paper, each layer has its own A_i.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__(weight, rank)
        out, into = weight.shape
        n = max(n for n in range(1, rank + 1) if out % n == 0 and into % n == 0)
        self.a = drawn(n, n, n, scale=1 / n, generator=generator)
        self.s, self.t = zeros(n, out // n, 1), drawn(n, 1, into // n, scale=1 / math.sqrt(into), generator=generator)

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        products = torch.einsum("iab,icd->acbd", self.a, self.s @ self.t)
        return weight + products.reshape(weight.shape)
