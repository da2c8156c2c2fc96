"""Blocks of sequences ``(1, tokens, width)``, after those of published transformers."""

from __future__ import annotations

import math

from hwnas.models.prior.builder import Builder, Value


def _mlp(b: Builder, x: Value, hidden: int, act: str) -> Value:
    return b.linear(b.act(b.linear(x, hidden), act), x.shape[-1])


def attention(b: Builder, x: Value, *, heads: int, mask: Value | None = None) -> Value:
    """Multi-head self-attention (Vaswani et al. 2017) of ``(batch, tokens, width)``; `mask` is added to the scores."""
    batch, count, width = x.shape
    each = width // heads
    if b.chance(0.7):
        made = b.reshape(b.linear(x, 3 * width), batch, count, 3, heads, each)
        made = b.transpose(made, 2, 0, 3, 1, 4)
        parts = b.split(made, [1, 1, 1], axis=0)
        q, k, v = (b.node("Squeeze", [part, b.integers(0)], part.shape[1:]) for part in parts)
    else:
        q, k, v = (b.transpose(b.reshape(b.linear(x, width), batch, count, heads, each), 0, 2, 1, 3) for _ in range(3))
    if b.chance(0.5):
        scale = b.scalar(each**-0.25)
        q, turned = b.mul(q, scale), b.mul(b.transpose(k, 0, 1, 3, 2), scale)
    else:
        q, turned = b.mul(q, b.scalar(each**-0.5)), b.transpose(k, 0, 1, 3, 2)
    scores = b.matmul(q, turned)
    if mask is not None:
        scores = b.add(scores, mask)
    found = b.matmul(b.softmax(scores), v)
    return b.linear(b.reshape(b.transpose(found, 0, 2, 1, 3), batch, count, width), width)


def _heads(b: Builder, width: int) -> int:
    fitting = [heads for heads in range(1, 33) if width % heads == 0 and 16 <= width // heads <= 128]
    usual = [heads for heads in fitting if width // heads in (32, 48, 64)]
    return b.number(*(usual or fitting or [1]))


def encoder(b: Builder, x: Value) -> Value:
    """Attention and MLP, normalised before (ViT) or after (BERT), or with scaled branches (DeiT-III, CaiT)."""
    heads, hidden, act = _heads(b, x.shape[-1]), x.shape[-1] * b.number(2, 3, 4, 4, 4), b.one_of("gelu", "gelu", "relu")
    if b.chance(0.2):
        x = b.layer_norm(b.add(x, attention(b, x, heads=heads)))
        return b.layer_norm(b.add(x, _mlp(b, x, hidden, act)))
    scaled = b.chance(0.25)
    for part in ("attention", "mlp"):
        y = b.layer_norm(x)
        out = attention(b, y, heads=heads) if part == "attention" else _mlp(b, y, hidden, act)
        x = b.add(x, b.mul(out, b.weight(out.shape[-1])) if scaled else out)
    return x


def windows(b: Builder, x: Value) -> Value:
    """Attention within windows of a square of tokens, with a bias for relative positions (Swin, Liu et al. 2021)."""
    _, count, width = x.shape
    side = math.isqrt(count)
    fitting = [size for size in (4, 6, 7, 8, 10, 12, 14, 16) if side**2 == count and side % size == 0]
    if not fitting:
        return encoder(b, x)
    size, heads = b.number(*fitting), _heads(b, width)
    each, number = side // size, size * size
    out = b.reshape(b.layer_norm(x), 1, side, side, width)
    if b.chance(0.4):  # exporters keep the padding to a multiple of the window where there is none
        out = b.padded(out, 0, 0, 0, 0, 0, 0, 0, 0)
    if b.chance(0.5) and each > 1:  # shifted windows
        for axis in (1, 2):
            first, last = b.split(out, [size // 2, side - size // 2], axis=axis)
            out = b.concat([last, first], axis=axis)
    out = b.transpose(b.reshape(out, 1, each, size, each, size, width), 0, 1, 3, 2, 4, 5)
    out = b.reshape(out, each * each, number, width)
    bias = Value(b.weight(1, heads, number, number), (1, heads, number, number))
    out = attention(b, out, heads=heads, mask=bias)
    out = b.transpose(b.reshape(out, 1, each, each, size, size, width), 0, 1, 3, 2, 4, 5)
    x = b.add(x, b.reshape(out, 1, count, width))
    return b.add(x, _mlp(b, b.layer_norm(x), width * 4, "gelu"))


def mixer(b: Builder, x: Value) -> Value:
    """MLPs over tokens and over channels (MLP-Mixer, ResMLP)."""
    _, count, width = x.shape
    turned = b.transpose(b.layer_norm(x), 0, 2, 1)
    turned = (
        _mlp(b, turned, b.near(count * b.number(1, 2, 4) / 2, 8), "gelu") if b.chance(0.7) else b.linear(turned, count)
    )
    x = b.add(x, b.transpose(turned, 0, 2, 1))
    return b.add(x, _mlp(b, b.layer_norm(x), width * b.number(2, 4), "gelu"))


def gated(b: Builder, x: Value) -> Value:
    """Attention and a gated MLP (SwiGLU of language models; gMLP's gate over tokens)."""
    _, count, width = x.shape
    if b.chance(0.5):
        x = b.add(x, attention(b, b.layer_norm(x), heads=_heads(b, width)))
        y, hidden = b.layer_norm(x), b.near(width * 8 / 3, 8)
        return b.add(x, b.linear(b.mul(b.act(b.linear(y, hidden), "silu"), b.linear(y, hidden)), width))
    hidden = width * 3
    first, second = b.split(b.act(b.linear(b.layer_norm(x), 2 * hidden), "gelu"), [hidden, hidden], axis=2)
    gate = b.linear(b.transpose(b.layer_norm(second), 0, 2, 1), count)
    return b.add(x, b.linear(b.mul(first, b.transpose(gate, 0, 2, 1)), width))


def linear_attention(b: Builder, x: Value) -> Value:
    """Attention whose softmax is of keys over tokens, over channels, or none (CoaT, XCiT, EfficientViT)."""
    _, count, width = x.shape
    heads = _heads(b, width)
    each, y = width // heads, b.layer_norm(x)
    if b.chance(0.5):
        found = _of_channels(b, y, heads)
    else:
        parts = [b.reshape(b.linear(y, width), 1, count, heads, each) for _ in range(3)]
        how = b.one_of("relu", "unit", "tokens", "tokens")
        early = how == "tokens" and b.chance(0.5)  # softmax over the tokens, before or after the heads are first
        if early:
            parts[1] = b.softmax(parts[1], axis=1)
        q, k, v = (b.transpose(part, 0, 2, 1, 3) for part in parts)
        if how == "relu":
            q, k = b.act(q, "relu"), b.act(k, "relu")
        elif how == "unit":
            q, k = _unit(b, q), _unit(b, k)
        elif not early:
            k = b.softmax(k, axis=2)
        inner = b.matmul(b.transpose(k, 0, 1, 3, 2), v)
        if b.chance(0.5):
            inner = b.softmax(inner)
        found = b.matmul(q, inner)
        if b.chance(0.3):  # the first token is left out, and padded again (CoaT)
            every = [b.integers(value) for value in (1, count, 2, 1)]
            rest = b.node("Slice", [found, *every], (1, heads, count - 1, each))
            found = b.add(found, b.padded(rest, 0, 0, 1, 0, 0, 0, 0, 0))
        found = b.reshape(b.transpose(found, 0, 2, 1, 3), 1, count, width)
    x = b.add(x, b.linear(found, width))
    return b.add(x, _mlp(b, b.layer_norm(x), 4 * width, "gelu"))


def _of_channels(b: Builder, y: Value, heads: int) -> Value:
    """Attention between channels, whose tokens are made the last axis in one step (XCiT, EdgeNeXt)."""
    _, count, width = y.shape
    each = width // heads
    made = b.transpose(b.reshape(b.linear(y, 3 * width), 1, count, 3, heads, each), 2, 0, 3, 4, 1)
    parts = b.split(made, [1, 1, 1], axis=0)
    q, k, v = (b.node("Squeeze", [part, b.integers(0)], part.shape[1:]) for part in parts)
    scores = b.matmul(_unit(b, q, 3), b.transpose(_unit(b, k, 3), 0, 1, 3, 2))
    found = b.matmul(b.softmax(b.mul(scores, b.weight(heads, 1, 1))), v)
    return b.reshape(b.transpose(found, 0, 3, 1, 2), 1, count, width)


def in_patches(b: Builder, x: Value) -> Value:
    """Encoders on maps of an even size, whose pixels attend to the same places of other 2x2 patches (MobileViT)."""
    _, width, height, long = x.shape
    patches = height * long // 4
    y = b.transpose(b.reshape(x, width * height // 2, 2, long // 2, 2), 0, 2, 1, 3)
    y = b.transpose(b.reshape(y, 1, width, patches, 4), 0, 3, 2, 1)
    y = b.reshape(y, 4, patches, width)
    for _ in range(b.number(1, 2)):
        y = encoder(b, y)
    y = b.transpose(b.reshape(y, 1, 4, patches, width), 0, 3, 2, 1)
    y = b.transpose(b.reshape(y, width * height // 2, long // 2, 2, 2), 0, 2, 1, 3)
    return b.reshape(y, *x.shape)


def _unit(b: Builder, x: Value, axis: int = 2) -> Value:
    """Each vector along an axis, by default each channel over the tokens, divided by its length."""
    shape = tuple(1 if i == axis else size for i, size in enumerate(x.shape))
    length = b.node("ReduceL2", [x, b.integers(axis)], shape, keepdims=1)
    least = b.node("Clip", [length, b.scalar(1e-6)], length.shape)
    return b.node("Div", [x, b.node("Expand", [least, b.integers(*x.shape)], x.shape)], x.shape)


def halved(b: Builder, x: Value) -> Value:
    """Attention of every second token to all, then each twice (LeViT, PiT)."""
    _, count, width = x.shape
    every = [b.integers(value) for value in (0, count, 1, 2)]
    few = b.node("Slice", [x, *every], (1, (count + 1) // 2, width))
    q, k, v = b.linear(few, width, bias=False), b.linear(x, width, bias=False), b.linear(x, width, bias=False)
    found = b.matmul(b.softmax(b.mul(b.matmul(q, b.transpose(k, 0, 2, 1)), b.scalar(width**-0.5))), v)
    found = b.linear(b.act(found, "hard-swish"), width, bias=False)
    twice = b.concat([found, found], axis=1)
    if twice.shape[1] > count:
        twice, _ = b.split(twice, [count, twice.shape[1] - count], axis=1)
    x = b.add(x, twice)
    return b.add(x, _mlp(b, x, 2 * width, "hard-swish"))


def few_channels(b: Builder, x: Value) -> Value:
    """Attention with 16 channels of a query, twice or four times as many of a value, without norms (LeViT)."""
    _, count, width = x.shape
    heads, key = max(1, width // b.number(32, 48, 64)), b.number(16, 16, 32)
    value = key * b.number(2, 2, 4)
    made = b.linear(x, heads * (2 * key + value), bias=b.chance(0.5))
    parts = b.split(b.reshape(made, 1, count, heads, 2 * key + value), [key, key, value], axis=3)
    q, v = (b.transpose(part, 0, 2, 1, 3) for part in parts[::2])
    scores = b.mul(b.matmul(q, b.transpose(parts[1], 0, 2, 3, 1)), b.scalar(key**-0.5))
    scores = b.add(scores, Value(b.weight(heads, count, count), (heads, count, count)))
    found = b.reshape(b.transpose(b.matmul(b.softmax(scores), v), 0, 2, 1, 3), 1, count, heads * value)
    x = b.add(x, b.linear(b.act(found, "hard-swish"), width))
    return b.add(x, _mlp(b, x, 2 * width, "hard-swish"))


# Function -> how often it is drawn.
BLOCKS = {encoder: 5.0, windows: 2.0, mixer: 1.0, gated: 1.0, linear_attention: 1.3, halved: 0.5, few_channels: 0.8}
