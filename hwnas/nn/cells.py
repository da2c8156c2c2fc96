"""Modules for the edges and nodes of cells."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, fx, nn

from hwnas.spaces import Op


def relu_conv_bn(inp: int, out: int, *, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution without bias, padded by half the kernel, BN."""
    return nn.Sequential(
        OrderedDict(
            act=nn.ReLU(),
            conv=nn.Conv2d(inp, out, kernel, stride, kernel // 2, bias=False),
            bn=nn.BatchNorm2d(out),
        )
    )


def relu_depthwise_bn(inp: int, out: int, *, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise convolution with "same" padding, 1x1, BN."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        OrderedDict(
            act=nn.ReLU(),
            depthwise=nn.Conv2d(inp, inp, kernel, stride, padding, dilation=dilation, groups=inp, bias=False),
            pointwise=nn.Conv2d(inp, out, 1, bias=False),
            bn=nn.BatchNorm2d(out),
        )
    )


def relu_conv(op: Op) -> nn.Module:
    """ReLU, convolution, BN."""
    return relu_conv_bn(op.input[0], op.output[0], kernel=op.number("kernel"), stride=op.number("stride"))


def sep_conv(op: Op) -> nn.Module:
    """ReLU, depthwise convolution, 1x1, BN, twice; the first depthwise convolution has the stride."""
    inp, kernel = op.input[0], op.number("kernel")
    return nn.Sequential(
        OrderedDict(
            first=relu_depthwise_bn(inp, inp, kernel=kernel, stride=op.number("stride")),
            second=relu_depthwise_bn(inp, op.output[0], kernel=kernel),
        )
    )


def dil_conv(op: Op) -> nn.Module:
    """ReLU, depthwise convolution dilated by two, 1x1, BN."""
    kernel, stride = op.number("kernel"), op.number("stride")
    return relu_depthwise_bn(op.input[0], op.output[0], kernel=kernel, stride=stride, dilation=2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each after a ReLU and before a BN; the average-pooled and projected input is added."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        inp, out, kernel, stride = op.input[0], op.output[0], op.number("kernel"), op.number("stride")
        self.layers = nn.Sequential(
            OrderedDict(
                first=relu_conv_bn(inp, out, kernel=kernel, stride=stride),
                second=relu_conv_bn(out, out, kernel=kernel),
            )
        )
        self.shortcut = nn.Sequential(
            OrderedDict(pool=nn.AvgPool2d(stride, ceil_mode=True), conv=nn.Conv2d(inp, out, 1, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        y: Tensor = self.shortcut(x) + self.layers(x)
        return y


class FactorizedReduce(nn.Module):
    """ReLU, 1x1 convolution of even pixels for half of the channels and of odd pixels for the rest, BN; sides are even.

    Each half has its own BN, which is equivalent and can be folded into its convolution.
    """

    def __init__(self, op: Op) -> None:
        super().__init__()
        inp, out = op.input[0], op.output[0]
        self.act = nn.ReLU()
        self.even = _reducing(inp, out // 2)
        self.odd = _reducing(inp, out - out // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        x = self.act(x)
        return torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1)


def _reducing(inp: int, out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(inp, out, 1, 2, bias=False), bn=nn.BatchNorm2d(out)))


def sum_of(op: Op) -> nn.Module:
    """The sum of several tensors ``(n, *op.input)`` -> ``(n, *op.output)``."""
    return _merging(
        len(op.inputs), lambda graph, xs: reduce(lambda x, y: graph.call_function(operator.add, (x, y)), xs)
    )


def concat_of(op: Op) -> nn.Module:
    """The concatenated channels of several tensors ``(n, *op.input)`` -> ``(n, *op.output)``."""
    return _merging(len(op.inputs), lambda graph, xs: graph.call_function(torch.cat, (xs, 1)))


def _merging(inputs: int, merge: Callable[[fx.Graph, list[fx.Node]], fx.Node]) -> nn.Module:
    """Build a module with `inputs` arguments as a graph: a module with ``*args`` cannot be traced or exported."""
    graph = fx.Graph()
    graph.output(merge(graph, [graph.placeholder(f"x{i}") for i in range(inputs)]))
    return fx.GraphModule(nn.Module(), graph)


class Zero(nn.Module):
    """Output zeros, downsampled by the stride."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.stride = op.number("stride")

    def forward(self, x: Tensor) -> Tensor:
        """``(n, c, h, w)`` -> zeros, with sides divided by the stride."""
        read = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        return read * 0.0
