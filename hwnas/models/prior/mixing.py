"""Blocks of feature maps ``(1, channels, height, width)`` whose positions are mixed by themselves (MetaFormer)."""

from __future__ import annotations

from hwnas.models.prior.builder import Builder, Value


def modern(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Large depthwise kernel, or strips (InceptionNeXt), LayerNorm over channels, MLP (ConvNeXt, Liu et al. 2022)."""
    if stride > 1 or x.shape[1] != channels:
        x = b.conv(_channels_norm(b, x), channels, 2 if stride > 1 else 1, stride, pad=False)
    if b.chance(0.2):
        few, long = channels // 8, b.number(7, 11, 11)
        rest, *parts = b.split(x, [channels - 3 * few, few, few, few])
        sides = ((3, 3), (1, long), (long, 1))
        out = b.concat([rest, *(b.conv(part, few, side, 1, few) for part, side in zip(parts, sides, strict=True))])
    else:
        out = b.conv(x, channels, b.number(3, 5, 7, 7, 7, 9), 1, channels)
    inner = channels * b.number(2, 3, 4, 4)
    if b.chance(0.7):
        rows = b.layer_norm(b.transpose(out, 0, 2, 3, 1))
        rows = b.linear(b.act(b.linear(rows, inner), "gelu"), channels)
        if b.chance(0.5):
            rows = b.mul(rows, b.weight(channels))
        out = b.transpose(rows, 0, 3, 1, 2)
    else:
        out = b.conv(b.act(b.conv(_channels_norm(b, out), inner), "gelu"), channels)
        out = b.mul(out, b.weight(1, channels, 1, 1))
    return b.add(x, out)


def _channels_norm(b: Builder, x: Value) -> Value:
    return b.transpose(b.layer_norm(b.transpose(x, 0, 2, 3, 1)), 0, 3, 1, 2)


def pooling(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Average pooling in place of attention, and an MLP of 1x1 convolutions (PoolFormer, Yu et al. 2022)."""
    if stride > 1 or x.shape[1] != channels:
        x = b.conv(x, channels, 3, stride)
    y = group_norm(b, x) if b.chance(0.7) else x
    mixed = b.node("Sub", [b.pool(y, "AveragePool", 3, 1), y], x.shape)
    x = b.add(x, b.mul(mixed, b.weight(1, channels, 1, 1)))
    act = b.one_of("gelu", "relu")
    out = b.conv(b.act(b.conv(x, channels * b.number(2, 4)), act), channels)
    return b.add(x, b.mul(out, b.weight(1, channels, 1, 1)) if b.chance(0.5) else out)


def mixed_patches(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Depthwise convolution with a shortcut, and 1x1, normalised after the activation (ConvMixer)."""
    if stride > 1 or x.shape[1] != channels:
        x = b.conv(x, channels, 3, stride)
    act = b.one_of("gelu", "relu")
    out = b.act(b.conv(x, channels, b.number(5, 7, 9), 1, channels), act)
    out = b.add(_affine(b, out), x)
    return _affine(b, b.act(b.conv(out, channels), act))


def _affine(b: Builder, x: Value) -> Value:
    names = [b.weight(x.shape[1]) for _ in range(4)]
    return b.node("BatchNormalization", [x, *names], x.shape, epsilon=1e-5)


def group_norm(b: Builder, x: Value) -> Value:
    """GroupNorm as exporters write it: an InstanceNormalization of the groups."""
    groups = b.number(1, 4, 8)
    flat = b.reshape(x, 1, groups, x.shape[1] // groups * x.shape[2] * x.shape[3])
    made = b.node("InstanceNormalization", [flat, b.weight(groups), b.weight(groups)], flat.shape, epsilon=1e-5)
    width = x.shape[1]
    made = b.mul(b.reshape(made, *x.shape), b.weight(1, width, 1, 1))
    return b.node("Add", [made, b.weight(1, width, 1, 1)], x.shape)


def on_maps(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Attention between positions of a map, with tokens along the last axis (CoAtNet, MobileNet-v4)."""
    if stride > 1 or x.shape[1] != channels:
        x = b.conv(x, channels, 3, stride)
    if x.shape[2] > 28:
        return b.add(b.conv(b.act(b.conv(x, 2 * channels), "gelu"), channels), x)
    each = b.number(16, 32, 64)
    heads = max(1, channels // each)
    count = x.shape[2] * x.shape[3]
    q, k, v = (b.reshape(b.conv(x, heads * each), 1, heads, each, count) for _ in range(3))
    scores = b.matmul(b.mul(b.transpose(q, 0, 1, 3, 2), b.scalar(each**-0.5)), k)
    if b.chance(0.5):
        scores = b.node("Add", [scores, b.weight(1, heads, count, count)], scores.shape)
    found = b.matmul(b.softmax(scores), b.transpose(v, 0, 1, 3, 2))
    made = b.reshape(b.transpose(found, 0, 1, 3, 2), 1, heads * each, *x.shape[2:])
    return b.add(b.conv(made, channels), x)


def squared(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Depthwise convolution between two linear layers, and an MLP, with squared ReLU (CAFormer, Yu et al. 2024)."""
    if stride > 1 or x.shape[1] != channels:
        x = b.conv(x, channels, 3, stride)
    rows = b.transpose(x, 0, 2, 3, 1)
    out = b.linear(b.layer_norm(rows), 2 * channels, bias=False)
    out = b.transpose(_star_relu(b, out), 0, 3, 1, 2)
    out = b.transpose(b.conv(out, 2 * channels, 7, 1, 2 * channels, bias=False), 0, 2, 3, 1)
    rows = b.add(rows, b.linear(out, channels, bias=False))
    out = b.linear(_star_relu(b, b.linear(b.layer_norm(rows), 4 * channels, bias=False)), channels, bias=False)
    return b.transpose(b.add(rows, out), 0, 3, 1, 2)


def _star_relu(b: Builder, x: Value) -> Value:
    """The square of ReLU, scaled and shifted."""
    power = b.node("Pow", [b.act(x, "relu"), b.scalar(2.0)], x.shape)
    return b.node("Add", [b.mul(power, b.scalar(0.9)), b.scalar(-0.4)], x.shape)
