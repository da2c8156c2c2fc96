"""Methods of fine-tuning: one record each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.adapters.base import Adapter
from hwnas.adapters.dynamic import DynamicLowRank
from hwnas.adapters.low_rank import Dora, Kronecker, Lora
from hwnas.adapters.spectral import Gates, SpectralAdditive, SpectralRotation

HEAD = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterKind:
    """What is known of a method.

    Attributes:
        summary: what it trains, in a line.
        make: adapter of a weight ``(out, in)`` before the training, a rank and a generator; None: layers keep their
            weights, all but the last one.
        ranked: whether a rank can be chosen.
    """

    summary: str
    make: Callable[[Tensor, int, torch.Generator], Adapter] | None
    ranked: bool = True


# A package outside hwnas adds its record before a training begins.
ADAPTERS: dict[str, AdapterKind] = {
    HEAD: AdapterKind(summary="the last layer", make=None),
    "lora": AdapterKind(summary="adds a product of two thin matrices", make=Lora),
    "dora": AdapterKind(summary="as lora, with the norms of rows apart", make=Dora),
    "spectral": AdapterKind(summary="adds to the largest singular vectors", make=SpectralAdditive),
    "spectral-rotation": AdapterKind(
        summary="rotates the largest singular vectors and scales their values", make=SpectralRotation
    ),
    "gates": AdapterKind(summary="drops singular directions", make=Gates, ranked=False),
    "kronecker": AdapterKind(summary="adds Kronecker products", make=Kronecker),
    "dynamic-rank": AdapterKind(summary="trains a weight of low rank, and finds the rank", make=DynamicLowRank),
}
