"""Ops: the layer or block in a slot, as a value with a canonical text.

An op is the unit of profiling: its key is the row name in a latency table. The key holds the kind, the
shapes and the attributes; dtype, batch size and threads belong to the recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hwnas.errors import InvalidValue, UnknownName

Shape = tuple[int, ...]
Attribute = int | str


@dataclass(frozen=True, slots=True)
class Op:
    """One operation with its shapes, without the batch axis.

    Attributes:
        kind: a key of `KINDS`.
        input: shape of the input, ``(channels, height, width)``.
        output: shape of the output, ``(channels, height, width)`` or ``(features,)``.
        attributes: name and value of each attribute, sorted by name.
    """

    kind: str
    input: Shape
    output: Shape
    attributes: tuple[tuple[str, Attribute], ...]

    def __getitem__(self, name: str) -> Attribute:
        """The value of an attribute."""
        return dict(self.attributes)[name]

    def number(self, name: str) -> int:
        """The value of an integer attribute."""
        value = self[name]
        assert isinstance(value, int), (name, value)
        return value

    @property
    def key(self) -> str:
        """Canonical text, e.g. ``mbconv 24x40x40>40x20x20 act=relu expand=1 kernel=5 mid=96 se=1 skip=0 stride=2``."""
        shapes = f"{'x'.join(map(str, self.input))}>{'x'.join(map(str, self.output))}"
        return " ".join([self.kind, shapes, *(f"{name}={value}" for name, value in self.attributes)])

    @property
    def free(self) -> bool:
        """Whether the op is empty: no kernel runs, and it costs nothing."""
        return self.kind == "none"

    @property
    def inputs(self) -> int:
        """Number of inputs of the shape `input`."""
        return self.number("terms") if "terms" in KINDS[self.kind].attributes else 1

    @property
    def macs(self) -> int:
        """MACs of the convolutions and linear layers for one image."""
        return KINDS[self.kind].macs(self)

    @property
    def params(self) -> int:
        """Number of parameters (weights, biases, BN scale and shift)."""
        return KINDS[self.kind].params(self)

    @property
    def activations(self) -> int:
        """Peak number of live activation values for one image, computed layer by layer without fusion.

        A layer's input and output are live together; the input of a residual is live until it is added.
        """
        return KINDS[self.kind].activations(self)


def make_op(kind: str, input_: Shape, output: Shape, **attributes: Attribute) -> Op:
    """An op with its attributes in canonical order.

    Raises:
        UnknownName: `kind` is not in `KINDS`.
        InvalidValue: the attributes do not match the kind, or have a wrong type.
    """
    if kind not in KINDS:
        raise UnknownName("op kind", kind, KINDS)
    if set(attributes) != KINDS[kind].attributes:
        raise InvalidValue(
            f"op kind {kind!r} has the attributes {sorted(KINDS[kind].attributes)}, not {sorted(attributes)}"
        )
    for name, value in attributes.items():
        if isinstance(value, str) != (name in TEXTS):
            raise InvalidValue(
                f"{name} of {kind!r} must be {'a string' if name in TEXTS else 'an integer'}, not {value!r}"
            )
    return Op(kind, input_, output, tuple(sorted(attributes.items())))


def parse_op(key: str) -> Op:
    """The op of a key: the inverse of `Op.key`.

    Raises:
        InvalidValue: the text is not the key of an op.
    """
    try:
        kind, shapes, *pairs = key.split(" ")
        input_, output = (tuple(int(n) for n in side.split("x")) for side in shapes.split(">"))
        attributes = {name: int(value) if value.isdigit() else value for name, value in (p.split("=") for p in pairs)}
        op = make_op(kind, input_, output, **attributes)
    except (ValueError, UnknownName, InvalidValue) as error:
        raise InvalidValue(f"{key!r} is not the key of an op: {error}") from error
    if op.key != key:
        raise InvalidValue(f"{key!r} is not in canonical form; it should be {op.key!r}")
    return op


@dataclass(frozen=True, slots=True)
class OpKind:
    """Properties of a kind of op that are known without building it."""

    attributes: frozenset[str]
    macs: Callable[[Op], int]
    params: Callable[[Op], int]
    activations: Callable[[Op], int]


def squeeze_width(mid: int) -> int:
    """Width of a squeeze-and-excitation bottleneck over `mid` channels (MobileNetV3: a quarter, divisible by 8)."""
    return make_divisible(mid // 4)


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, at least `divisor` and not below 90% of it (MobileNetV2)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _area(shape: Shape) -> int:
    return math.prod(shape[1:])


def _conv_macs(op: Op) -> int:
    return op.input[0] * op.output[0] * op.number("kernel") ** 2 * _area(op.output)


def _conv_params(op: Op) -> int:
    return op.input[0] * op.output[0] * op.number("kernel") ** 2 + 2 * op.output[0]


def _mbconv_macs(op: Op) -> int:
    mid = op.number("mid")
    expand = op.number("expand") * op.input[0] * mid * _area(op.input)
    depthwise = mid * op.number("kernel") ** 2 * _area(op.output)
    squeeze = op.number("se") * 2 * mid * squeeze_width(mid)
    return expand + depthwise + squeeze + mid * op.output[0] * _area(op.output)


def _mbconv_params(op: Op) -> int:
    mid, squeeze = op.number("mid"), squeeze_width(op.number("mid"))
    expand = op.number("expand") * (op.input[0] * mid + 2 * mid)
    depthwise = mid * op.number("kernel") ** 2 + 2 * mid
    excite = op.number("se") * (2 * mid * squeeze + mid + squeeze)
    return expand + depthwise + excite + mid * op.output[0] + 2 * op.output[0]


def _classifier_macs(op: Op) -> int:
    hidden = op.number("hidden")
    return op.input[0] * hidden + hidden * op.output[0]


def _classifier_params(op: Op) -> int:
    return _classifier_macs(op) + op.output[0]


def _bottleneck_macs(op: Op) -> int:
    mid = op.number("mid")
    down = op.number("downsample") * op.input[0] * op.output[0] * _area(op.output)
    return op.input[0] * mid * _area(op.input) + (9 * mid + op.output[0]) * mid * _area(op.output) + down


def _bottleneck_params(op: Op) -> int:
    mid, inp, out = op.number("mid"), op.input[0], op.output[0]
    down = op.number("downsample") * (inp * out + 2 * out)
    return inp * mid + 9 * mid * mid + mid * out + 4 * mid + 2 * out + down


def _conv_activations(op: Op) -> int:
    return math.prod(op.input) + math.prod(op.output)


def _mbconv_activations(op: Op) -> int:
    inp, out, mid = math.prod(op.input), math.prod(op.output), op.number("mid")
    wide, deep = mid * _area(op.input), mid * _area(op.output)
    kept = op.number("skip") * inp
    expand = inp + wide if op.number("expand") else 0
    return max(expand, kept + (wide if op.number("expand") else inp) + deep, kept + deep + out)


def _bottleneck_activations(op: Op) -> int:
    inp, out, mid = math.prod(op.input), math.prod(op.output), op.number("mid")
    wide, deep = mid * _area(op.input), mid * _area(op.output)
    shortcut = op.number("downsample") * out  # computed while the input and the other branch's output are live
    return inp + max(wide + deep, deep + out, out + shortcut)


def _classifier_activations(op: Op) -> int:
    return math.prod(op.input) + op.input[0]  # the image and its mean; later layers are smaller


def _linear_params(op: Op) -> int:
    return op.macs + op.output[0]


def _basic_block_macs(op: Op) -> int:
    return _conv_macs(op) + (9 * op.output[0] ** 2 + op.input[0] * op.output[0]) * _area(op.output)


def _basic_block_params(op: Op) -> int:
    return _conv_params(op) + 9 * op.output[0] ** 2 + 2 * op.output[0] + op.input[0] * op.output[0]


def _basic_block_activations(op: Op) -> int:
    return math.prod(op.input) + 3 * math.prod(op.output)  # the shortcut is computed last


def _depthwise_macs(op: Op) -> int:
    """One depthwise convolution and the 1x1 after it."""
    return op.input[0] * (op.number("kernel") ** 2 + op.output[0]) * _area(op.output)


def _depthwise_params(op: Op) -> int:
    return op.input[0] * (op.number("kernel") ** 2 + op.output[0]) + 2 * op.output[0]


def _sep_conv_macs(op: Op) -> int:
    once = op.input[0] * (op.number("kernel") ** 2 + op.input[0]) * _area(op.output)
    return once + _depthwise_macs(op)


def _sep_conv_params(op: Op) -> int:
    once = op.input[0] * (op.number("kernel") ** 2 + op.input[0]) + 2 * op.input[0]
    return once + _depthwise_params(op)


def _terms_activations(op: Op) -> int:
    return op.inputs * math.prod(op.input) + math.prod(op.output)


def _nothing(_: Op) -> int:
    return 0


TEXTS = frozenset({"act"})  # attributes that are strings; all others are integers

KINDS: dict[str, OpKind] = {
    # convolution, BN, activation
    "conv": OpKind(frozenset({"kernel", "stride", "act"}), _conv_macs, _conv_params, _conv_activations),
    # inverted residual of MobileNetV3 (Howard et al. 2019, figure 4); `expand=0` omits the first 1x1
    "mbconv": OpKind(
        frozenset({"mid", "kernel", "stride", "act", "expand", "se", "skip"}),
        _mbconv_macs,
        _mbconv_params,
        _mbconv_activations,
    ),
    # convolution, BN, activation, then the input is added
    "residual-conv": OpKind(frozenset({"kernel", "act"}), _conv_macs, _conv_params, _conv_activations),
    # residual of ResNet-50 (He et al. 2016, figure 5); 2x2 average pool and 1x1 on the shortcut (He et al. 2019, "-D")
    "bottleneck": OpKind(
        frozenset({"mid", "stride", "act", "downsample"}),
        _bottleneck_macs,
        _bottleneck_params,
        _bottleneck_activations,
    ),
    "maxpool": OpKind(frozenset({"kernel", "stride"}), _nothing, _nothing, _conv_activations),
    # average over the pixels inside the image only
    "avgpool": OpKind(frozenset({"kernel", "stride"}), _nothing, _nothing, _conv_activations),
    # global average pooling, linear without bias, activation, linear
    "classifier": OpKind(frozenset({"hidden", "act"}), _classifier_macs, _classifier_params, _classifier_activations),
    # global average pooling, linear
    "linear": OpKind(frozenset(), lambda op: op.input[0] * op.output[0], _linear_params, _classifier_activations),
    # BN, ReLU, global average pooling, linear
    "bn-linear": OpKind(
        frozenset(),
        lambda op: op.input[0] * op.output[0],
        lambda op: _linear_params(op) + 2 * op.input[0],
        _classifier_activations,
    ),
    "relu": OpKind(frozenset(), _nothing, _nothing, _conv_activations),
    # ReLU, convolution, BN (Liu et al., "DARTS", ICLR 2019; Dong and Yang, "NAS-Bench-201", ICLR 2020)
    "relu-conv": OpKind(frozenset({"kernel", "stride"}), _conv_macs, _conv_params, _conv_activations),
    # two such convolutions; 2x2 average pooling and 1x1 on the shortcut (NAS-Bench-201, between its stages)
    "basic-block": OpKind(
        frozenset({"kernel", "stride"}), _basic_block_macs, _basic_block_params, _basic_block_activations
    ),
    # ReLU, depthwise convolution, 1x1, BN: twice, or once and dilated by two (DARTS)
    "sep-conv": OpKind(frozenset({"kernel", "stride"}), _sep_conv_macs, _sep_conv_params, _conv_activations),
    "dil-conv": OpKind(frozenset({"kernel", "stride"}), _depthwise_macs, _depthwise_params, _conv_activations),
    # ReLU, two concatenated 1x1 with stride 2, one of them shifted by a pixel, BN (DARTS)
    "factorized-reduce": OpKind(
        frozenset(),
        lambda op: op.input[0] * op.output[0] * _area(op.output),
        lambda op: op.input[0] * op.output[0] + 2 * op.output[0],
        _conv_activations,
    ),
    # sum, and concatenation of the channels, of several tensors of the shape `input`
    "sum": OpKind(frozenset({"terms"}), _nothing, _nothing, _terms_activations),
    "concat": OpKind(frozenset({"terms"}), _nothing, _nothing, _terms_activations),
    # zeros for each image
    "zero": OpKind(frozenset({"stride"}), _nothing, _nothing, _conv_activations),
    # an edge without an output; it never runs
    "none": OpKind(frozenset(), _nothing, _nothing, _nothing),
}
