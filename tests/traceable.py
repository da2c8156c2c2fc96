"""Small networks of all forms that a trace has rules for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Basic(nn.Module):
    """Two convolutions with a skip connection, projected if the width changes."""

    def __init__(self, inp: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(inp, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.two, self.norm2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.skip = nn.Identity()
        if stride > 1 or inp != out:
            self.skip = nn.Sequential(nn.Conv2d(inp, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.two(functional.relu(self.norm1(self.one(x)), inplace=True)))
        y += self.skip(x)
        return functional.relu_(y)


class Inverted(nn.Module):
    """Expansion, depthwise, squeeze-and-excitation, projection."""

    def __init__(self, inp: int, mid: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(inp, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.Hardswish())
        self.depth = nn.Sequential(nn.Conv2d(mid, mid, 3, 1, 1, groups=mid, bias=False), nn.BatchNorm2d(mid))
        self.reduce, self.excite = nn.Conv2d(mid, 16, 1), nn.Conv2d(16, mid, 1)
        self.project = nn.Sequential(nn.Conv2d(mid, inp, 1, bias=False), nn.BatchNorm2d(inp))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.depth(self.expand(x)))
        gate = torch.sigmoid(self.excite(functional.relu(self.reduce(y.mean((2, 3), keepdim=True)))))
        return x + self.project(y * gate)


class Dense(nn.Module):
    """Each layer reads all features before it."""

    def __init__(self, inp: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inp + i * growth), nn.ReLU(), nn.Conv2d(inp + i * growth, growth, 3, 1, 1))
            for i in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class Attention(nn.Module):
    """Self-attention and a gated FFN, pre-norm, with a layer scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.scale * self.proj(y)
        value, gate = self.up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(value * functional.gelu(gate))


class Tokens(nn.Module):
    """Patches as tokens with positions and a class token, as a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 8, 8)
        self.first, self.positions = nn.Parameter(torch.randn(1, 1, 48)), nn.Parameter(torch.randn(1, 17, 48))
        self.blocks = nn.Sequential(Attention(48, 3), Attention(48, 3))
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Shuffled(nn.Module):
    """A grouped convolution, a shuffle of its channels, a split in halves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.grouped = nn.Conv2d(32, 64, 3, 1, 1, groups=8)
        self.left, self.right = nn.Conv2d(32, 24, 1), nn.Conv2d(32, 40, 1)
        self.head = nn.Linear(64 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.grouped(self.stem(x)))
        n, c, h, w = x.shape
        x = x.view(n, 8, c // 8, h, w).transpose(1, 2).reshape(n, c, h, w)
        left, right = x.chunk(2, dim=1)
        x = torch.cat([self.left(left), self.right(right)], 1)
        return self.head(functional.adaptive_avg_pool2d(functional.relu(x), 2).flatten(1))


def stem(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def head(width: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(width, 10))


NETWORKS = {
    "residual": lambda: nn.Sequential(stem(16), Basic(16, 16), Basic(16, 32, 2), Basic(32, 32), head(32)),
    "inverted": lambda: nn.Sequential(stem(16), Inverted(16, 64), Inverted(16, 48), head(16)),
    "dense": lambda: nn.Sequential(stem(16), Dense(16, 16), nn.ReLU(), head(64)),
    "tokens": Tokens,
    "shuffled": Shuffled,
}


def drawn(name: str) -> nn.Module:
    """A network with random weights and statistics, in evaluation mode."""
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.normal_(layer.running_mean, 0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return module


def counted_macs(network: nn.Module, x: Tensor) -> int:
    """MACs of convolutions and linear layers, counted while the network runs."""
    total = 0

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        total += out[0].numel() * math.prod(layer.weight.shape[1:])

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    network(x)
    for hook in hooks:
        hook.remove()
    return total
