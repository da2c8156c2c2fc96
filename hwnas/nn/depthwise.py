"""Depthwise convolutions of small images: compute the weight gradient as a matrix product.

If an image is smaller than the kernel, oneDNN computes this gradient with general matrix products, channel by channel.
A training step of `mobilenetv3-tiny` spent 27% of its time there, with 7x7 kernels on 4x4 images. This module reduces
the time of the backward pass of such a convolution to between a third and a quarter, and of a whole training step to
two thirds (two threads of an AMD EPYC, Zen 3). On larger images oneDNN is faster.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class DepthwiseConv2d(nn.Conv2d):
    """A `torch.nn.Conv2d` whose weight gradient is computed as a matrix product if that is faster."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: A002 (torch's name)
        if _is_faster(self, input) and bias is None:
            geometry = self.stride[0], int(self.padding[0]), self.dilation[0]
            small: Tensor = _SmallDepthwise.apply(input, weight, *geometry)  # type: ignore[no-untyped-call]
            return small
        usual: Tensor = super()._conv_forward(input, weight, bias)
        return usual


def speed_up_depthwise(module: nn.Module) -> nn.Module:
    """Replace every depthwise convolution of a module in place by a `DepthwiseConv2d`; return the module."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.groups == layer.in_channels == layer.out_channels > 1:
            layer.__class__ = DepthwiseConv2d
    return module


def _is_faster(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether the images are smaller than the kernel, on a CPU and in single precision."""
    span = layer.dilation[0] * (layer.kernel_size[0] - 1) + 1
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and x.dim() == 4
        and max(x.shape[-2:]) < span
    )


class _SmallDepthwise(torch.autograd.Function):
    """A depthwise convolution with square kernels; all except the weight gradient uses torch's implementation."""

    # torch's `ctx` accepts any attribute.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        ctx.geometry = stride, padding, dilation
        return functional.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        to_image = to_weight = None
        if ctx.needs_input_grad[0]:
            stride, padding, dilation = ([number, number] for number in ctx.geometry)
            to_image, *_ = torch.ops.aten.convolution_backward(
                *(gradient, x, weight, None, stride, padding, dilation, False, [0, 0], len(weight)),
                [True, False, False],
            )
        if ctx.needs_input_grad[1]:
            to_weight = _weight_gradient(x, gradient, weight.shape, *ctx.geometry)
        return to_image, to_weight, None, None, None


def _weight_gradient(
    x: Tensor, gradient: Tensor, shape: torch.Size, stride: int, padding: int, dilation: int
) -> Tensor:
    """The weight gradient of a depthwise convolution.

    For each channel, the product of images and gradients, summed over the batch, has an entry for every pair of an
    input pixel and an output pixel; the gradient of a kernel tap is the sum over the pairs that it connects.

    Args:
        x: ``(n, channels, h, w)``.
        gradient: of the output, ``(n, channels, out_h, out_w)``.
        shape: of the weight, ``(channels, 1, kernel, kernel)``.
        stride: of the convolution.
        padding: of the convolution, pixels on each side.
        dilation: of the kernel.
    """
    images, gradients = (tensor.transpose(0, 1).flatten(2).contiguous() for tensor in (x, gradient))
    pairs = torch.bmm(images.transpose(1, 2), gradients).flatten(1)
    geometry = (tuple(x.shape[2:]), tuple(gradient.shape[2:]), shape[-1], stride, padding, dilation)
    return (pairs @ _connections(*geometry).to(pairs.dtype)).view(shape)


@functools.lru_cache(maxsize=256)
def _connections(
    size: tuple[int, int], out: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int
) -> Tensor:
    """Indicate which kernel tap connects an input pixel with an output pixel: ``(pixel pairs, taps)`` of 0 and 1."""

    def along(length: int, out_length: int) -> Tensor:
        """Compute the connections along one side: ``(kernel, length, out_length)``."""
        offsets = torch.arange(length)[:, None] - stride * torch.arange(out_length) + padding
        return torch.stack([offsets == dilation * tap for tap in range(kernel)])

    rows, columns = along(size[0], out[0]), along(size[1], out[1])
    connected = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
    return connected.permute(2, 3, 4, 5, 0, 1).reshape(-1, kernel * kernel).float().contiguous()
