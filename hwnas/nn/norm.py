"""Batch normalisation: synchronised over processes, and folded into convolutions."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils.fusion import fuse_conv_bn_eval


def at_least_single(tensor: Tensor) -> Tensor:
    """The tensor in at least single precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _Total(torch.autograd.Function):
    """The sum over all processes. Every process's loss depends on it, so its gradient is the sum over the processes."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _total(tensor: Tensor) -> Tensor:
    total: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]
    return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BN whose training statistics cover the images of all processes, so the result does not depend on their number.

    With one process it is equivalent to `torch.nn.BatchNorm2d`. (`torch.nn.SyncBatchNorm` supports GPUs only.)
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` -> the same shape."""
        if not (self.training and distributed.is_initialized() and distributed.get_world_size() > 1):
            return super().forward(x)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        pixels = x.shape[0] * x.shape[2] * x.shape[3] * distributed.get_world_size()
        precise = at_least_single(x)
        mean = _total(precise.sum(dim=(0, 2, 3))) / pixels
        centred = precise - mean[:, None, None]
        variance = _total(centred.square().sum(dim=(0, 2, 3))) / pixels
        assert self.running_mean is not None
        assert self.running_var is not None
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(variance.to(self.running_var.dtype) * pixels / (pixels - 1), share)
        scale = (variance + self.eps).rsqrt() * self.weight
        out: Tensor = (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
        return out


def share_batch_norms(module: nn.Module) -> nn.Module:
    """Replace every BN of a module in place by one that is synchronised over processes."""
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = SharedBatchNorm2d
    return module


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold every BN that follows a convolution into it, in place: the same outputs in a quarter less time.

    Pairs are adjacent children of a module. Unlike `torch.fx.experimental.optimization.fuse`, it does not trace the
    module and takes a tenth of the time (10 to 25 ms instead of 160 to 220 ms for a network of `mobilenetv3-tiny`).

    Args:
        module: in evaluation mode; its children run in the order in which they are registered.
    """
    for parent in list(module.modules()):
        children = list(parent.named_children())
        for (name, layer), (next_name, norm) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, next_name, nn.Identity())
    return module
