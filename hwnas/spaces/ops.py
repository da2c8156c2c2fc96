"""Ops: the layer or block in a slot, as a value with a canonical text.

An op is the unit of profiling: its key is the row name in a latency table. The key holds the kind, the
shapes and the attributes; dtype, batch size and threads belong to the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces.kinds import KINDS, TEXTS

Shape = tuple[int, ...]
Attribute = int | str


@dataclass(frozen=True, slots=True)
class Op:
    """One operation with its shapes, without the batch axis.

    Attributes:
        kind: a key of `hwnas.spaces.kinds.KINDS`.
        input: shape of the first input: of an image ``(channels, height, width)``, of the vectors of tokens
            ``(length, width)``, of tokens ``(length,)``.
        output: shape of the output, likewise; of a classifier ``(classes,)``.
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
        return KINDS[self.kind].role == "none"

    @property
    def inputs(self) -> tuple[Shape, ...]:
        """Shapes of all inputs; the first is `input`."""
        shapes = KINDS[self.kind].inputs
        return (self.input,) if shapes is None else shapes(self)

    @property
    def without_size(self) -> Op:
        """The op without its image size, if its graph and weights do not depend on it; otherwise the op itself.

        Convolutions, global pooling and linear layers export to the same graph at any size (a test checks it), so ops
        that differ only in the size are exported once and get their size afterwards.
        """
        if not KINDS[self.kind].resizable:
            return self
        return Op(self.kind, self.input[:1], self.output[:1], self.attributes)

    @property
    def macs(self) -> int:
        """MACs of convolutions, linear layers and the products of matrices in attentions, for one input."""
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
        UnknownName: `kind` is not in `hwnas.spaces.kinds.KINDS`.
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
