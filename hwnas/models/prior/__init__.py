"""Random networks in the manner of published ones: the prior of kernel shapes from which a device is profiled.

Every network combines stages of blocks (`maps`, `tokens`) with random widths, resolutions, kernels and activations. No
two blocks of a network are alike, so that a short network has many different kernels. Weights are random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import onnx

from hwnas.models.prior import maps, tokens
from hwnas.models.prior.builder import Builder, Value

MOST_MACS = 1_200_000_000  # blocks are added up to this; about 30 ms on one core of a present CPU
MOST_CHANNELS = 1024  # of a stage; a 3x3 convolution then has 38 MB of weights
_SIDES = (96, 112, 128, 160, 192, 192, 224, 224, 224, 224, 224, 240, 256, 256, 288, 320, 384)
_UNEVEN = 0.3  # share of the networks of `maps.OF_ANY_WIDTH` whose widths are no multiples of 8
_STEPS = (0.7548776662466927, 0.5698402909980532)
F = TypeVar("F", bound=Callable[..., Value])

__all__ = ["MOST_MACS", "random_network"]


def random_network(seed: int, number: int) -> onnx.ModelProto:
    """A network of the prior.

    Args:
        seed: of the sequence of networks.
        number: of the network in the sequence.
    """
    rng = np.random.default_rng((seed, number))
    b = Builder(rng, recent=bool(rng.random() < 0.6), turn=_turn(seed, number, 0))
    return _part(_KINDS, _turn(seed, number, 1))(b)


def _turn(seed: int, number: int, axis: int) -> float:
    """A number from 0 to 1 for each network and each of two axes; those of consecutive networks are spread evenly.

    It is the additive recurrence of the plastic number (Roberts, "The Unreasonable Effectiveness of Quasirandom
    Sequences", 2018): so few networks have all kinds of blocks in their shares.
    """
    start = float(np.random.default_rng((seed, axis)).random())
    return (start + number * _STEPS[axis]) % 1.0


def _part(choices: Mapping[F, float], turn: float) -> F:
    """The choice at a share of the whole."""
    ends = np.cumsum(list(choices.values()))
    return list(choices)[int(np.searchsorted(ends, turn * ends[-1], side="right"))]


def _drawn(b: Builder, blocks: Mapping[F, float]) -> F:
    """A block, by how often each is drawn: the network's turn for the first one, then at random."""
    turn, b.turn = b.turn, None
    return _part(blocks, float(b.rng.random()) if turn is None else turn)


def _stem(b: Builder) -> Value:
    side = b.number(*_SIDES)
    x = b.input((1, 3, side, side))
    act = b.one_of("relu", "silu", "hard-swish")
    kind = b.one_of("3x3", "3x3", "3x3", "7x7", "deep", "patch")
    if kind == "patch":
        return b.conv(x, b.near(b.number(40, 64, 96, 128), 8, 0.3), 4, 4, pad=False)
    if kind == "deep":
        width = b.number(16, 24, 32)
        x = b.act(b.conv(x, width, 3, 2), act)
        x = b.act(b.conv(x, width, 3), act)
        return b.pool(b.act(b.conv(x, 2 * width, 3), act), "MaxPool", 3, 2)
    if kind == "7x7":
        return b.pool(b.act(b.conv(x, b.number(32, 64, 64, 80), 7, 2), act), "MaxPool", 3, 2)
    return b.act(b.conv(x, b.number(16, 16, 24, 32, 32, 40, 48, 64), 3, 2), act)


def _stages(b: Builder, x: Value, least: int) -> Value:
    """Stages that halve the resolution down to `least`, each with a few different blocks.

    A network has few families of blocks: mostly one or two. Half of the networks have the widths of most published
    ones, powers of 2 and three times those, of which each stage has twice as many. Strides of a power of 2 share few
    lines of a cache: a mean over the sides of 1x56x56x256 took 4.4 ns per element in ONNX Runtime, of widths nearby 1.
    Some networks have widths that are no multiples of 8 (ReXNet, GhostNet), for which runtimes have other kernels.
    """
    family = {_drawn(b, maps.BLOCKS): 1.0 for _ in range(b.number(1, 1, 2))}
    b.multiple = 2 if b.chance(_UNEVEN) and set(family) <= maps.OF_ANY_WIDTH else 8
    width, grows = max(x.shape[1], b.number(16, 24, 32, 48, 64, 96, 128)), 2.0
    if b.multiple == 8 and b.chance(0.5):
        width = max(width, b.number(32, 64, 64, 128, 256))
    else:
        width, grows = b.near(width, 8, 0.3), float(b.rng.uniform(1.5, 2.2))
    first = b.chance(0.5)  # a stage before the first halving
    while first or x.shape[2] >= 2 * least:
        for place in range(b.number(1, 2, 2, 3)):
            stride = 2 if place == 0 and not first else 1
            if b.macs > MOST_MACS and stride == 1:
                continue
            x = _drawn(b, family)(b, x, width, stride)
        first = False
        width = min(MOST_CHANNELS, b.near(width * grows, 8))
    b.multiple = 8
    return x


def _classified(b: Builder, x: Value) -> onnx.ModelProto:
    """A classifier on maps."""
    if b.chance(0.4):
        x = b.act(b.conv(x, b.number(576, 960, 1280, 1536)), b.one_of("relu", "silu", "hard-swish"))
    pooled = b.mean(x, 2, 3)
    if b.chance(0.3):
        pooled = b.act(b.conv(pooled, b.number(512, 1024, 1280)), "hard-swish")
    flat = b.reshape(pooled, 1, pooled.shape[1])
    if b.chance(0.2):  # VGG, CAFormer
        flat = b.act(b.linear(flat, b.number(512, 1024, 2048, 4096)), b.one_of("relu", "gelu"))
    return b.model(b.linear(flat, b.number(10, 100, 1000, 1000, 1000)))


def _maps(b: Builder) -> onnx.ModelProto:
    return _classified(b, _stages(b, _stem(b), b.number(4, 6, 7, 7, 7)))


def _sequence(b: Builder, x: Value, most: int) -> Value:
    """Blocks of tokens, mostly of one or two families."""
    family = {_drawn(b, tokens.BLOCKS): 1.0 for _ in range(b.number(1, 1, 2))}
    for _ in range(b.number(*range(1, most + 1))):
        if b.macs < MOST_MACS:
            x = _drawn(b, family)(b, x)
    return x


def _flat(b: Builder, x: Value) -> Value:
    """Tokens ``(1, tokens, width)`` of a map."""
    _, width, height, long = x.shape
    return b.transpose(b.reshape(x, 1, width, height * long), 0, 2, 1)


def _patches(b: Builder) -> onnx.ModelProto:
    """A transformer on patches of an image."""
    patch = b.number(4, 7, 8, 14, 16, 16, 16, 16, 32)
    side = patch * b.number(
        *{7: (8, 16, 32), 4: (14, 28, 56), 8: (14, 28)}.get(patch, (4, 7, 8, 12, 14, 14, 14, 16, 24))
    )
    width = b.near(b.number(96, 128, 192, 192, 256, 320, 384, 384, 512, 768), 32, 0.2 if b.chance(0.4) else 0.0)
    if side // patch > 24:
        width = min(width, 192)
    if b.chance(0.35):
        larger = side + b.number(0, 8, 16, 32)
        x = b.resized(b.input((1, 3, larger, larger)), side, b.one_of("linear", "cubic"))
    else:
        x = b.input((1, 3, side, side))
    x = _flat(b, b.conv(x, width, patch, patch, pad=False))
    if b.chance(0.5):
        first = Value(b.weight(1, 1, width), (1, 1, width))
        x = b.concat([first, x])
    x = b.node("Add", [x, b.weight(*x.shape)], x.shape)
    x = b.layer_norm(_sequence(b, x, 4))
    if b.chance(0.5):
        x = b.node("Gather", [x, b.constant(np.array(0, np.int64))], (1, width), axis=1)
    else:
        x = b.mean(x, 1, keep=False)
    return b.model(b.linear(x, 1000))


def _hybrid(b: Builder) -> onnx.ModelProto:
    """Stages of maps, then tokens, then maybe maps again (MobileViT, CoAtNet, EfficientFormer, EdgeNeXt)."""
    turn, b.turn = b.turn, None  # for the block of tokens
    x = _stages(b, _stem(b), b.number(4, 7, 8, 14, 14, 16))
    b.turn = turn
    width = min(512, b.near(x.shape[1], 32))
    x = b.conv(x, width)
    _, _, height, long = x.shape
    if height % 2 == 0 and b.chance(0.25):
        x = tokens.in_patches(b, x)
    else:
        made = _sequence(b, _flat(b, x), 3)
        x = b.reshape(b.transpose(made, 0, 2, 1), 1, width, height, long)
    if b.chance(0.5):
        x = _drawn(b, maps.BLOCKS)(b, x, b.near(width * 1.5, 8), 2 if height % 2 == 0 else 1)
    return _classified(b, x)


def _text(b: Builder) -> onnx.ModelProto:
    """A transformer on numbers of tokens."""
    words, count = b.number(1000, 8000, 30000), b.number(16, 32, 64, 128, 128, 256, 384, 512)
    width = b.number(128, 192, 256, 312, 384, 512, 768)
    x = b.node("Gather", [b.weight(words, width), b.input((1, count), tokens=words)], (1, count, width), axis=0)
    x = b.layer_norm(b.node("Add", [x, b.weight(1, count, width)], x.shape))
    x = _sequence(b, x, 3)
    return b.model(b.linear(b.mean(x, 1, keep=False) if b.chance(0.5) else x, b.number(2, 9, 100)))


def _sound(b: Builder) -> onnx.ModelProto:
    """Convolutions over time on bands of a spectrum, and maybe a transformer."""
    x = b.input((1, b.number(40, 64, 80), b.number(100, 200, 300, 500)))
    width = b.near(b.number(64, 128, 256, 384), 8, 0.3)
    for _ in range(b.number(2, 3, 4)):
        groups = width if x.shape[1] == width and b.chance(0.4) else 1
        x = b.act(b.conv(x, width, b.number(3, 5, 9, 15), b.number(1, 1, 2), groups), b.one_of("relu", "gelu", "silu"))
    x = b.transpose(x, 0, 2, 1)
    if b.chance(0.5):
        x = _sequence(b, x, 2)
    return b.model(b.linear(x, b.number(29, 128)))


_KINDS = {_maps: 0.58, _patches: 0.2, _hybrid: 0.14, _text: 0.05, _sound: 0.03}
