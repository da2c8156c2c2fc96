"""Ops as torch modules: the single definition of the computation of each op.

Profiling, training (through `hwnas.nn.elastic`) and deployment all run these modules, so they are always consistent.
"""

from __future__ import annotations

import functools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from hwnas.nn.wired import Wired
from hwnas.plugins import load_object
from hwnas.spaces import Op, Space, Value
from hwnas.spaces.kinds import KINDS, squeeze_width

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}


def conv_bn(inp: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "") -> nn.Sequential:
    """Convolution without bias, padded by half the kernel, BN and an optional activation."""
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inp, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        "bn": nn.BatchNorm2d(out),
    }
    if act and act != "none":
        layers["act"] = ACTIVATIONS[act]()
    return nn.Sequential(OrderedDict(layers))


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) with MobileNetV3's hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = squeeze_width(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, h, w)`` -> the same shape."""
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


class MBConv(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise, squeeze-excitation, 1x1 projection, optional skip connection."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        inp, out, mid, act = op.input[0], op.output[0], op.number("mid"), str(op["act"])
        layers: dict[str, nn.Module] = {}
        if op["expand"]:
            layers["expand"] = conv_bn(inp, mid, act=act)
        layers["depthwise"] = conv_bn(
            mid, mid, kernel=op.number("kernel"), stride=op.number("stride"), groups=mid, act=act
        )
        if op["se"]:
            layers["se"] = SqueezeExcite(mid)
        layers["project"] = conv_bn(mid, out)
        self.layers = nn.Sequential(OrderedDict(layers))
        self.skip = bool(op["skip"])

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class GroupedMBConv(nn.Module):
    """Inverted residual: grouped 1x1 expansion, channel shuffle, depthwise, grouped 1x1 projection, optional skip."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        inp, out, mid, act = op.input[0], op.output[0], op.number("mid"), str(op["act"])
        groups, kernel, stride = op.number("groups"), op.number("kernel"), op.number("stride")
        self.layers = nn.Sequential(
            OrderedDict(
                expand=conv_bn(inp, mid, groups=groups, act=act),
                shuffle=nn.ChannelShuffle(groups),
                depthwise=conv_bn(mid, mid, kernel=kernel, stride=stride, groups=mid, act=act),
                project=conv_bn(mid, out, groups=groups),
            )
        )
        self.skip = bool(op["skip"])

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class ResidualConv(nn.Module):
    """Convolution, BN and activation, with a skip connection."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.layers = conv_bn(op.input[0], op.output[0], kernel=op.number("kernel"), act=str(op["act"]))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> the same shape."""
        y: Tensor = self.layers(x)
        return x + y


class Bottleneck(nn.Module):
    """1x1 reduction, 3x3, 1x1 expansion; adds the input (pooled and projected when downsampling), then activates."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        inp, out, mid = op.input[0], op.output[0], op.number("mid")
        stride, act = op.number("stride"), str(op["act"])
        self.layers = nn.Sequential(
            OrderedDict(
                reduce=conv_bn(inp, mid, act=act),
                spatial=conv_bn(mid, mid, kernel=3, stride=stride, act=act),
                expand=conv_bn(mid, out),
            )
        )
        self.shortcut: nn.Module = nn.Identity()
        if op["downsample"]:
            self.shortcut = conv_bn(inp, out)
            if stride > 1:  # otherwise average pooling is the identity
                self.shortcut = nn.Sequential(
                    OrderedDict(pool=nn.AvgPool2d(stride, ceil_mode=True), **dict(self.shortcut.named_children()))
                )
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, *op.input)`` -> ``(n, *op.output)``."""
        y: Tensor = self.act(self.shortcut(x) + self.layers(x))
        return y


def conv(op: Op) -> nn.Module:
    """Convolution, BN, activation."""
    return conv_bn(
        op.input[0], op.output[0], kernel=op.number("kernel"), stride=op.number("stride"), act=str(op["act"])
    )


def patch_conv(op: Op) -> nn.Module:
    """Convolution of square patches side by side, BN, activation."""
    layers = conv_bn(op.input[0], op.output[0], act=str(op["act"]))
    layers.conv = nn.Conv2d(op.input[0], op.output[0], op.number("patch"), op.number("patch"), bias=False)
    return layers


def classifier(op: Op) -> nn.Module:
    """Global average pooling, linear without bias, activation, linear."""
    hidden = op.number("hidden")
    layers = {
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(op.input[0], hidden, bias=False),
        "act": ACTIVATIONS[str(op["act"])](),
        "linear": nn.Linear(hidden, op.output[0]),
    }
    return nn.Sequential(OrderedDict(layers))


def linear(op: Op) -> nn.Module:
    """Global average pooling, linear."""
    layers = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(op.input[0], op.output[0])}
    return nn.Sequential(OrderedDict(layers))


def maxpool(op: Op) -> nn.Module:
    """Max pooling, padded by half the kernel."""
    kernel = op.number("kernel")
    return nn.MaxPool2d(kernel, op.number("stride"), kernel // 2)


def avgpool(op: Op) -> nn.Module:
    """Average pooling, padded by half the kernel; padding pixels are excluded from the mean."""
    kernel = op.number("kernel")
    return nn.AvgPool2d(kernel, op.number("stride"), kernel // 2, count_include_pad=False)


def bn_linear(op: Op) -> nn.Module:
    """BN, ReLU, global average pooling, linear."""
    layers = {
        "bn": nn.BatchNorm2d(op.input[0]),
        "act": nn.ReLU(),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "linear": nn.Linear(op.input[0], op.output[0]),
    }
    return nn.Sequential(OrderedDict(layers))


def relu(op: Op) -> nn.Module:
    """ReLU that several edges share."""
    return nn.ReLU()


def build(op: Op, *, bn_eps: float = 1e-5) -> nn.Module:
    """The module of an op: ``(n, *op.input)`` -> ``(n, *op.output)``, with torch's default initial weights."""
    module = _builder(op.kind)(op)
    if KINDS[op.kind].own_eps:
        return module
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = bn_eps
    return module


@functools.cache
def _builder(kind: str) -> Callable[[Op], nn.Module]:
    path = KINDS[kind].module
    assert path is not None, kind  # a kind without a module is never built
    return cast("Callable[[Op], nn.Module]", load_object(path))


def initialise(module: nn.Module, *, seed: int) -> None:
    """Initialise weights, deterministically for a given seed.

    Convolutions by He et al. with the fan-out (as in once-for-all), linear layers uniformly, embeddings and positions
    with a standard deviation of 0.02 (as in BERT and ViT).
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size) // layer.groups
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan_out), generator=generator)
        elif isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def network(space: Space, arch: Mapping[str, Value]) -> Wired:
    """The whole network of an arch: ``(n, in_channels, height, width)`` -> logits ``(n, classes)``."""
    nodes = space.network(arch)
    modules = {module_name(node.name): build(node.op, bn_eps=space.bn_eps) for node in nodes}
    return Wired(modules, [node.reads for node in nodes])


def module_name(slot: str) -> str:
    """Name of a slot's module: torch interprets dots as paths."""
    return slot.replace(".", "_")


def channels_last(module: nn.Module) -> nn.Module:
    """Convert a module to channels-last memory format, in which torch's CPU convolutions are fastest."""
    moved: nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def laid_out(x: Tensor) -> Tensor:
    """A batch in the memory format of `channels_last`; tokens have none."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def plain(module: nn.Module) -> nn.Module:
    """Convert a network to torch layers only (a `torch.fx.GraphModule`) that share its weights.

    It runs, exports and can be quantised without hwnas.
    """
    graph = torch.fx.symbolic_trace(module)
    return graph.train(module.training)
