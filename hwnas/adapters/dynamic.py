"""Training of a weight of low rank that finds the rank."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.adapters.base import Factored

TRUNCATION = 0.1  # share of the norm of the singular values that a step may cut off


class DynamicLowRank(Factored):
    """``U S VT`` alone, in place of W (Schotthöfer et al., "Low-rank lottery tickets", NeurIPS 2022, algorithm 1).

    A step moves ``K = U S`` and ``L = V ST`` along the gradient, extends the bases by the results, moves S in the
    extended bases, and cuts its smallest singular values off: up to `TRUNCATION` of their norm. The extended bases hold
    the old ones, so the gradient of the S-step is that of the same weight: a step takes one gradient, not two.

    At first it is the weight without its smallest singular values, cut off in the same way; `rank` is the least that
    is kept.
    """

    def merge(self, weight: Tensor) -> Tensor:
        """As in the base class."""
        return (self.u * self.s @ self.v).to(weight.dtype)

    @torch.no_grad()
    def advance(self, gradient: Tensor, learning_rate: float) -> None:
        """As in the base class."""
        where = torch.device("cpu") if gradient.device.type == "mps" else gradient.device  # mps has no double precision
        g, u, v, s = (tensor.to(where).double() for tensor in (gradient, self.u, self.v.T, self.s))
        left, _ = torch.linalg.qr(torch.cat([u * s - learning_rate * g @ v, u], 1))
        right, _ = torch.linalg.qr(torch.cat([v * s - learning_rate * g.T @ u, v], 1))
        inner = (left.T @ u) * s @ (v.T @ right) - learning_rate * left.T @ g @ right
        p, values, q = torch.linalg.svd(inner)
        made = self._cut(left @ p, values, q @ right.T)
        self.u, self.s, self.v = (tensor.to(gradient.device, gradient.dtype) for tensor in made)

    def _cut(self, u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors without the smallest singular values."""
        left_out = s.square().flip(0).cumsum(0).flip(0).sqrt()  # norm of the values from each one on
        kept = max(self.rank, int((left_out > TRUNCATION * left_out[0]).sum()))
        return u[:, :kept].contiguous(), s[:kept].contiguous(), v[:kept].contiguous()

    @property
    def found(self) -> int:
        """The rank."""
        return len(self.s)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *others: object) -> None:
        """Take over tensors of another rank."""
        for name in "usv":
            setattr(self, name, state_dict[f"{prefix}{name}"].clone())
