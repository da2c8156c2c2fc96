"""Blocks of feature maps ``(1, channels, height, width)``, after those of published networks."""

from __future__ import annotations

from hwnas.models.prior.builder import Builder, Value
from hwnas.models.prior.mixing import group_norm, mixed_patches, modern, on_maps, pooling, squared

ACTS = ("relu", "relu", "relu", "silu", "silu", "hard-swish", "gelu", "relu6", "leaky", "elu")


def squeeze_excite(b: Builder, x: Value, reduced: int, *, hard: bool = False) -> Value:
    """Channel attention (Hu et al. 2018): channels scaled by what two linear layers make of their means."""
    width = x.shape[1]
    inner = b.act(b.conv(b.mean(x, 2, 3), max(8, reduced)), "relu" if hard or b.chance(0.5) else "silu")
    gate = b.conv(inner, width)
    gate = b.node("HardSigmoid", [gate], gate.shape, alpha=1 / 6) if hard else b.act(gate, "sigmoid")
    return b.mul(x, gate)


def _shortcut(b: Builder, x: Value, out: Value, stride: int) -> Value:
    """The sum of a block and its input, which is projected if its shape differs."""
    if x.shape != out.shape:
        if stride > 1 and b.chance(0.3):
            x = b.pool(x, "AveragePool", 2, 2) if x.shape[2] % 2 == 0 else b.pool(x, "AveragePool", 3, 2)
            stride = 1
        x = b.conv(x, out.shape[1], 1, stride)
    return b.add(out, x)


def basic(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Two 3x3 convolutions (ResNet, He et al. 2016)."""
    act = b.one_of(*ACTS)
    out = b.act(b.conv(x, channels, 3, stride), act)
    out = b.conv(out, channels, 3)
    if b.chance(0.2):
        out = squeeze_excite(b, out, channels // 16)
    return b.act(_shortcut(b, x, out, stride), act)


def bottleneck(b: Builder, x: Value, channels: int, stride: int, group: int = 0) -> Value:
    """1x1, 3x3, 1x1 (ResNet); the 3x3 has groups of `group` channels, or one group if that is 0."""
    act = b.one_of(*ACTS)
    channels *= b.number(1, 1, 2) if channels >= 512 else 1  # the widest stage of ResNet-50 has 2,048
    inner = min(512, b.near(channels / b.number(1, 2, 4, 4), 8))
    if group:
        inner = max(group, inner // group * group)
    out = b.act(b.conv(x, inner), act)
    out = b.act(b.conv(out, inner, 3, stride, inner // group if group else 1), act)
    attends = b.one_of("inside", "inside", "outside", "none", "none", "none")  # RegNet's place, and SE-ResNet's
    if attends == "inside":
        out = squeeze_excite(b, out, inner // b.number(4, 8, 16))
    out = b.conv(out, channels)
    if attends == "outside":
        out = squeeze_excite(b, out, channels // 16)
    return b.act(_shortcut(b, x, out, stride), act)


def grouped(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A bottleneck whose 3x3 convolution is in groups (ResNeXt, RegNet, DPN)."""
    return bottleneck(b, x, channels, stride, b.number(3, 4, 4, 8, 8, 16, 16, 24, 32, 48, 64))


def inverted(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Expansion, depthwise, projection (MobileNet-v2 and -v3, EfficientNet)."""
    act = b.one_of("relu6", "relu", "silu", "silu", "hard-swish", "hard-swish", "gelu")
    inner = b.near(x.shape[1] * b.number(1, 2, 3, 4, 4, 6, 6), 8)
    out = x
    if inner != x.shape[1]:
        out = b.act(b.conv(out, inner), act)
    out = b.act(b.conv(out, inner, b.number(3, 3, 5, 5, 7), stride, inner), act)
    if b.chance(0.5):
        out = squeeze_excite(b, out, b.near(x.shape[1] / 4, 8), hard=act == "hard-swish")
    out = b.conv(out, channels)
    return b.add(out, x) if out.shape == x.shape else out


def fused_inverted(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A 3x3 convolution that expands, and a projection (EfficientNet-v2)."""
    out = b.act(b.conv(x, b.near(x.shape[1] * b.number(1, 2, 4), 8), 3, stride), b.one_of("silu", "relu", "gelu"))
    out = b.conv(out, channels)
    return b.add(out, x) if out.shape == x.shape else out


def separable(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Depthwise and 1x1 (MobileNet-v1, Xception, LCNet)."""
    act = b.one_of("relu", "hard-swish", "relu6")
    out = b.act(b.conv(x, x.shape[1], b.number(3, 3, 5), stride, x.shape[1]), act)
    return b.act(b.conv(out, channels), act)


def multiplied(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A depthwise convolution with several outputs for each input, and 1x1 (FastViT, Vasu et al. 2023)."""
    act = b.one_of("gelu", "relu", "silu")
    width = x.shape[1] * b.number(2, 2, 3)
    out = b.act(b.conv(x, width, b.number(3, 5, 7, 7), stride, x.shape[1]), act)
    return b.act(b.conv(out, channels), act)


def plain(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Convolutions, with a maximum to halve (VGG), or with a stride (RepVGG)."""
    act = b.one_of("relu", "relu", "leaky", "silu")
    if stride > 1 and b.chance(0.5):
        x, stride = b.pool(x, "MaxPool", *((2, 2) if x.shape[2] % 2 == 0 else (3, 2))), 1
    out = b.act(b.conv(x, channels, 3, stride), act)
    return b.act(b.conv(out, channels, b.number(1, 3)), act)


def dense(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Layers that read all earlier ones (DenseNet, Huang et al. 2017), with normalisation before the convolution."""
    if stride > 1:
        x = b.pool(b.conv(_normalised(b, x), b.near(x.shape[1] / 2, 8)), "AveragePool", 2, 2)
    growth, found = b.number(16, 24, 32, 32, 48), x
    for _ in range(b.number(2, 3, 4)):
        made = b.act(b.conv(_normalised(b, found), 4 * growth), "relu")
        found = b.concat([found, b.conv(made, growth, 3, bias=False)])
    return found if found.shape[1] < 2 * channels else b.conv(found, channels)


def _normalised(b: Builder, x: Value) -> Value:
    """A batch norm that cannot be folded, and ReLU."""
    width = x.shape[1]
    names = [b.weight(width) for _ in range(4)]
    return b.act(b.node("BatchNormalization", [x, *names], x.shape, epsilon=1e-5), "relu")


def inception(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Branches of several kernels (Inception, Szegedy et al. 2016)."""
    part = b.near(channels / 4, 8)
    inner = b.near(part * 0.75, 8)
    first = b.act(b.conv(x, part, 3 if stride > 1 else 1, stride), "relu")
    second = b.act(b.conv(b.act(b.conv(x, inner), "relu"), part, b.number(3, 5), stride), "relu")
    long = b.number(3, 7)
    third = b.act(b.conv(x, inner), "relu")
    third = b.act(b.conv(third, inner, (1, long)), "relu")
    third = b.act(b.conv(third, part, (long, 1)), "relu")
    third = b.act(b.conv(third, part, 3, stride), "relu") if stride > 1 else third
    if stride > 1:
        fourth = b.pool(x, "MaxPool", 3, 2)
    else:
        fourth = b.act(b.conv(b.pool(x, b.one_of("AveragePool", "MaxPool"), 3, 1), part), "relu")
    return b.concat([first, second, third, fourth])


def aggregated(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """3x3 convolutions in a row, all of which are read at the end (VoVNet, Lee et al. 2019)."""
    if stride > 1:
        x = b.pool(x, "MaxPool", 3, 2)
    inner, found, out = b.near(channels / 4, 8), [x], x
    for _ in range(b.number(2, 3, 4)):
        out = b.act(b.conv(out, inner, 3), "relu")
        found.append(out)
    return b.act(b.conv(b.concat(found), channels), "relu")


def partial_stage(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Half of the channels pass by (CSPNet, ELAN of YOLO)."""
    act = b.one_of("silu", "leaky", "relu")
    half = b.near(channels / 2, 8)
    x = b.act(b.conv(x, 2 * half, 3 if stride > 1 else 1, stride), act)
    kept, out = b.split(x, [half, half])
    found = [kept, out]
    for _ in range(b.number(1, 2)):
        inner = b.act(b.conv(b.act(b.conv(out, half, b.number(1, 3)), act), half, 3), act)
        out = b.add(inner, out)
        found.append(out)
    return b.act(b.conv(b.concat(found if b.chance(0.5) else [kept, out]), channels), act)


def shuffled(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Two halves whose channels are interleaved at the end (ShuffleNet-v2, Ma et al. 2018)."""
    half = b.near(channels / 2, 4)
    if stride > 1 or x.shape[1] % 2:
        left, right = b.conv(b.conv(x, x.shape[1], 3, stride, x.shape[1]), half), x
    else:
        left, right = b.split(x, [x.shape[1] // 2] * 2)
    out = b.act(b.conv(right, half), "relu")
    out = b.conv(out, half, 3, stride, half)
    out = b.act(b.conv(out, left.shape[1]), "relu")
    both = b.concat([left, out])
    _, count, height, width = both.shape
    mixed = b.transpose(b.reshape(both, 1, 2, count // 2, height, width), 0, 2, 1, 3, 4)
    return b.reshape(mixed, *both.shape)


def ghost(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Half of the channels by a depthwise convolution of the other half (GhostNet, Han et al. 2020), maybe gated."""

    def module(x: Value, channels: int, act: str) -> Value:
        half = channels // 2
        first = b.act(b.conv(x, half), act)
        return b.concat([first, b.act(b.conv(first, half, 3, 1, half), act)])

    out = module(x, b.near(x.shape[1] * b.number(2, 3, 6), 8), "relu")
    if b.chance(0.4):
        out = b.mul(out, _strips(b, x, out.shape[1]))
    if stride > 1:
        out = b.conv(out, out.shape[1], b.number(3, 5), stride, out.shape[1])
    if b.chance(0.4):
        out = squeeze_excite(b, out, out.shape[1] // 4, hard=True)
    out = module(out, b.near(channels, 8), "none")
    return b.add(out, x) if out.shape == x.shape else out


def _strips(b: Builder, x: Value, channels: int) -> Value:
    """A gate that reads rows and columns at half the resolution (GhostNet-v2, Tang et al. 2022)."""
    long = b.number(5, 5, 7)
    y = b.conv(b.pool(x, "AveragePool", 2, 2), channels)
    y = b.conv(b.conv(y, channels, (1, long), 1, channels), channels, (long, 1), 1, channels)
    return b.resized(b.act(y, "sigmoid"), x.shape[2], "nearest")


def hierarchical(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """Groups of channels convolved one after the other (Res2Net, Gao et al. 2019)."""
    width = b.near(channels / 8, 4)
    out = b.act(b.conv(x, 4 * width, 1, stride), "relu")
    parts = b.split(out, [width] * 4)
    found = [b.act(b.conv(parts[0], width, 3), "relu")]
    for part in parts[1:-1]:
        found.append(b.act(b.conv(b.add(part, found[-1]), width, 3), "relu"))
    out = b.conv(b.concat([*found, parts[-1]]), channels)
    return b.act(_shortcut(b, x, out, stride), "relu")


def two_scales(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A branch at half the resolution, enlarged and added (HRNet, feature pyramids)."""
    if stride > 1 or x.shape[1] != channels:
        x = b.act(b.conv(x, channels, 3, stride), "relu")
    if x.shape[2] < 8:
        return b.act(b.add(b.conv(x, channels, 3), x), "relu")
    inner = min(2 * channels, 512)
    low = b.act(b.conv(x, inner, 3, 2), "relu")
    low = b.conv(b.act(b.conv(low, inner, 3), "relu"), channels)
    up = b.resized(low, x.shape[2], b.one_of("nearest", "nearest", "linear", "cubic"))
    return b.act(b.add(x, up), "relu")


def grouped_norm(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A bottleneck with GroupNorm (Wu and He 2018), and a border that is padded before the stride."""
    if stride > 1:
        x = b.conv(b.padded(x, 0, 0, 0, 0, 0, 0, 1, 1), channels, 3, 2, pad=False)
    elif x.shape[1] != channels:
        x = b.conv(x, channels)
    inner = b.near(channels / 2, 8)
    out = b.act(group_norm(b, b.conv(x, inner)), "relu")
    return b.add(b.conv(b.act(group_norm(b, b.conv(out, inner, 3)), "relu"), channels), x)


def scaled(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A bottleneck without normalisation: activations and sums are scaled (NFNet, Brock et al. 2021)."""
    act = b.one_of("silu", "gelu", "relu")
    inner = b.near(channels / 2, 8)
    out = b.mul(b.act(x, act), b.scalar(1.7))
    out = b.mul(b.act(b.conv(out, inner, 1), act), b.scalar(1.7))
    out = b.mul(b.act(b.conv(out, inner, 3, stride), act), b.scalar(1.7))
    out = b.conv(out, channels)
    out = b.mul(squeeze_excite(b, out, channels // 8), b.scalar(2.0))
    return _shortcut(b, x, b.mul(out, b.scalar(0.2)), stride)


def split_attention(b: Builder, x: Value, channels: int, stride: int) -> Value:
    """A bottleneck of two branches, weighted for each channel by a softmax (SKNet, ResNeSt; Zhang et al. 2020)."""
    act = b.one_of("relu", "relu", "silu")
    inner = min(512, b.near(channels / b.number(1, 2, 4), 8))
    if stride > 1 and b.chance(0.5):
        x, stride = b.pool(x, "AveragePool", 3, 2), 1
    out = b.act(b.conv(x, inner), act)
    height, width = ((side - 1) // stride + 1 for side in out.shape[2:])
    if b.chance(0.5):  # one convolution in two groups
        both = b.act(b.conv(out, 2 * inner, 3, stride, 2), act)
        both = b.reshape(both, 1, 2, inner, height, width)
    else:
        branches = [b.act(b.conv(out, inner, 3, stride), act) for _ in range(2)]
        one = (1, 1, inner, height, width)
        both = b.concat([b.node("Unsqueeze", [branch, b.integers(1)], one) for branch in branches])
    mean = b.mean(_over_branches(b, both), 2, 3)
    gate = b.conv(b.act(b.conv(mean, max(32, inner // 4)), act), 2 * inner)
    gate = b.softmax(b.reshape(gate, 1, 2, inner), axis=1)
    made = _over_branches(b, b.mul(both, b.reshape(gate, 1, 2, inner, 1, 1)))
    return b.act(_shortcut(b, x, b.conv(made, channels), stride), act)


def _over_branches(b: Builder, x: Value) -> Value:
    """The sum over the second of five axes."""
    return b.node("ReduceSum", [x, b.integers(1)], (1, *x.shape[2:]), keepdims=0)


# Function -> how often it is drawn.
BLOCKS = {
    basic: 2.0,
    bottleneck: 2.0,
    grouped: 3.0,
    inverted: 4.0,
    fused_inverted: 1.0,
    separable: 1.0,
    multiplied: 1.0,
    plain: 1.5,
    dense: 1.0,
    inception: 1.0,
    aggregated: 0.7,
    partial_stage: 1.0,
    shuffled: 0.7,
    ghost: 0.7,
    hierarchical: 0.6,
    modern: 2.0,
    pooling: 0.7,
    mixed_patches: 0.6,
    two_scales: 1.0,
    grouped_norm: 0.4,
    on_maps: 0.8,
    scaled: 0.5,
    split_attention: 0.7,
    squared: 0.7,
}
# Those whose parts fit any even number of channels.
OF_ANY_WIDTH = {basic, bottleneck, inverted, fused_inverted, separable, plain, ghost}
