"""Folding of batch normalisation into the convolution before it."""

from __future__ import annotations

from torch import nn
from torch.fx.experimental.optimization import fuse

from hwnas.nn import plain


def folded(module: nn.Module) -> nn.Module:
    """A plain copy in evaluation mode in which every BN is part of its convolution; computes the same."""
    copy: nn.Module = fuse(plain(module).eval())
    return copy.requires_grad_(False)
