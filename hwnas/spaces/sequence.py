"""Spaces of sequences of tokens: in every layer a pattern of attention, a convolution, or a linear layer over them.

Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017 (the encoder); Tay et al., "Long Range Arena", ICLR
2021 (the patterns that are compared); see `hwnas.spaces.kinds.tokens` for each pattern. The mixer of a layer is an
ordinary variable, so the length from which one pattern is faster than another comes out of the latency table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from hwnas.errors import InvalidValue
from hwnas.spaces.ops import Op, make_op
from hwnas.spaces.options import SpaceOptions
from hwnas.spaces.slots import Slot, Value, Variable, from_depth, own_values
from hwnas.spaces.space import Space
from hwnas.spaces.wiring import IMAGE, Position

MASK = "mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patterns:
    """The sizes of the patterns.

    Attributes:
        window: largest distance of a key, in tokens.
        block: tokens of a block.
        rank: of Linformer's projections.
        buckets, chunk: of the hashing, and tokens of a chunk of sorted ones.
        kernel: of the convolution, odd.
    """

    window: int
    block: int
    rank: int
    buckets: int
    chunk: int
    kernel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixer:
    """How tokens read each other.

    Attributes:
        kind: of the op.
        sizes: attributes of the op that are fields of `Patterns`.
        heads: whether it has heads.
    """

    kind: str
    sizes: tuple[str, ...] = ()
    heads: bool = True


MIXERS = {
    "conv": Mixer(kind="token-conv", sizes=("kernel",), heads=False),
    "mix": Mixer(kind="token-mix", heads=False),
    "linformer": Mixer(kind="linformer", sizes=("rank",)),
    "lsh": Mixer(kind="lsh-attention", sizes=("buckets", "chunk")),
    "block": Mixer(kind="block-attention", sizes=("block",)),
    "window": Mixer(kind="window-attention", sizes=("window",)),
    "attention": Mixer(kind="attention"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """A family of networks over tokens.

    Attributes:
        lengths, widths, depths: choices of the number of tokens, of their width and of the number of layers, ascending.
        head: width of a head.
        heads: choices of the number of heads of an attention, ascending.
        mixers: choices of how tokens read each other in a layer, of `MIXERS`.
        ffns: choices of the activation of the feed-forward network: gelu, relu, relu2, silu, geglu, swiglu.
        expansions: choices of its hidden width, in percent of the width, ascending.
        norms: choices of the place of the LayerNorm, for all layers: pre, post.
        positions: choices of the positions: sinusoidal, learned.
        pools: choices of what the classifier reads: mean of the tokens, or the first one.
        scaled: whether the vectors of tokens are multiplied by the square root of their width.
        patterns: sizes of the patterns.
        vocabulary, classes: defaults, overridden by the data.
    """

    name: str
    lengths: tuple[int, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    head: int
    heads: tuple[int, ...]
    mixers: tuple[str, ...]
    ffns: tuple[str, ...]
    expansions: tuple[int, ...]
    norms: tuple[str, ...]
    positions: tuple[str, ...]
    pools: tuple[str, ...]
    scaled: bool
    patterns: Patterns
    vocabulary: int
    classes: int

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(expansions=self.expansions, length=self.lengths)

    def adjusted(self, options: SpaceOptions) -> Sequences:
        """This family with options; those that are None keep their values.

        Raises:
            InvalidValue: a length is below the rank of Linformer's projections.
        """
        lengths = options.length or self.lengths
        if "linformer" in self.mixers and lengths[0] < self.patterns.rank:
            raise InvalidValue(
                f"length {lengths[0]} is below {self.patterns.rank}, the rank of {self.name}'s linformer; use lengths "
                f"of {self.patterns.rank} or more"
            )
        return replace(self, lengths=lengths, expansions=options.expansions or self.expansions)

    def space(self, *, vocabulary: int, classes: int) -> Space:
        """The space of these networks for sequences of `vocabulary` tokens, of which 0 is padding."""
        depth = Variable(name="depth", values=self.depths)
        variables = [
            Variable(name="length", values=self.lengths),
            Variable(name="width", values=self.widths),
            Variable(name="norm", values=self.norms),
            Variable(name="positions", values=self.positions),
            Variable(name="pool", values=self.pools),
            depth,
        ]
        sizes = ("length", "width")
        slots = [
            Slot(name=MASK, group="embedding", variables=("length",), op=_mask),
            Slot(
                name="embedding",
                group="embedding",
                variables=(*sizes, "positions"),
                op=partial(_embedding, self, vocabulary),
            ),
        ]
        for i in range(1, max(self.depths) + 1):
            matters = from_depth(depth, i)
            read = (*sizes, "norm", *(() if matters is None else ("depth",)))
            layer = _Layer(self, i, matters is not None)
            mixer, heads, ffn, expansion = (f"{kind}_{i}" for kind in ("mixer", "heads", "ffn", "expansion"))
            variables += [
                Variable(name=mixer, values=self.mixers, matters=matters),
                Variable(
                    name=heads,
                    values=self.heads,
                    matters=(mixer, tuple(one for one in self.mixers if MIXERS[one].heads)),
                ),
                Variable(name=ffn, values=self.ffns, matters=matters),
                Variable(name=expansion, values=self.expansions, matters=matters),
            ]
            slots += [
                Slot(name=f"layer{i}.mixer", group=f"layer{i}", variables=(*read, mixer, heads), op=layer.mixer),
                Slot(name=f"layer{i}.ffn", group=f"layer{i}", variables=(*read, ffn, expansion), op=layer.ffn),
            ]
        slots.append(
            Slot(
                name="classifier",
                group="head",
                variables=(*sizes, "norm", "pool"),
                op=partial(_classifier, self, classes),
            )
        )
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=0,
            wiring=_wiring(slots),
            vocabulary=vocabulary,
        )


def _wiring(slots: list[Slot]) -> tuple[Position, ...]:
    """A chain in which mixers and the classifier also read the mask."""
    places, before = [], IMAGE
    for slot in slots:
        masked = slot.name.endswith(".mixer") or slot.name == "classifier"
        reads = (IMAGE,) if slot.name == MASK else (before, MASK) if masked else (before,)
        places.append(Position(name=slot.name, slot=slot.name, reads=reads))
        before = IMAGE if slot.name == MASK else slot.name
    return tuple(places)


@dataclass(frozen=True, slots=True)
class _Layer:
    """The ops of a layer.

    Attributes:
        net: the family.
        number: counted from 1.
        optional: whether its slots read the depth.
    """

    net: Sequences
    number: int
    optional: bool

    def mixer(self, length: int, width: int, norm: str, *values: Value) -> Op | None:
        """The op in which tokens read each other."""
        if (chosen := own_values(self.number, self.optional, values)) is None:
            return None
        mixer = MIXERS[str(chosen[0])]
        sizes = {name: int(getattr(self.net.patterns, name)) for name in mixer.sizes}
        if mixer.heads:
            sizes |= {"heads": int(chosen[1]), "head": self.net.head}
        return make_op(mixer.kind, (length, width), (length, width), norm=norm, masked=1, **sizes)

    def ffn(self, length: int, width: int, norm: str, *values: Value) -> Op | None:
        """The feed-forward network."""
        if (chosen := own_values(self.number, self.optional, values)) is None:
            return None
        hidden = width * int(chosen[1]) // 100
        return make_op("ffn", (length, width), (length, width), hidden=hidden, act=str(chosen[0]), norm=norm)


def _mask(length: int) -> Op:
    return make_op("mask", (length,), (length,))


def _embedding(net: Sequences, vocabulary: int, length: int, width: int, positions: str) -> Op:
    return make_op(
        "embedding",
        (length,),
        (length, width),
        vocabulary=vocabulary,
        positions=positions,
        scaled=int(net.scaled),
    )


def _classifier(net: Sequences, classes: int, length: int, width: int, norm: str, pool: str) -> Op:
    # After post-norm layers the tokens are normalised already.
    return make_op(
        "pooled-linear", (length, width), (classes,), pool=pool, norm="pre" if norm == "pre" else "none", masked=1
    )


SEQUENCES = (
    Sequences(
        name="sequence",
        lengths=(128,),
        widths=(32, 64, 96),
        depths=(1, 2, 3, 4),
        head=16,
        heads=(2, 4),
        mixers=tuple(MIXERS),
        ffns=("gelu", "relu2", "swiglu"),
        expansions=(100, 200, 400),
        norms=("post", "pre"),
        positions=("sinusoidal", "learned"),
        pools=("mean", "first"),
        scaled=False,
        patterns=Patterns(window=8, block=32, rank=32, buckets=8, chunk=32, kernel=3),
        vocabulary=256,
        classes=10,
    ),
    # Vaswani et al. 2017, section 3: post-norm, sinusoidal positions, vectors times the square root of the width, ReLU
    # and a hidden width of four times the width; its base model has width 512, 6 layers, 8 heads of 64.
    Sequences(
        name="encoder",
        lengths=(128,),
        widths=(256, 384, 512),
        depths=(2, 3, 4, 5, 6),
        head=64,
        heads=(4, 6, 8),
        mixers=("block", "window", "attention"),
        ffns=("relu",),
        expansions=(200, 300, 400),
        norms=("post",),
        positions=("sinusoidal",),
        pools=("mean",),
        scaled=True,
        patterns=Patterns(window=16, block=32, rank=32, buckets=8, chunk=32, kernel=3),
        vocabulary=256,
        classes=2,
    ),
)
