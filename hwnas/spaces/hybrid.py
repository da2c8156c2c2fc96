"""Hybrids: each block of a stage is a convolution or an attention over the pixels; the patches are a choice, too.

Source: Li et al., "BossNAS: Exploring Hybrid CNN-transformers with Block-wisely Self-supervised Neural Architecture
Search", ICCV 2021 (the choice in every block); Li et al., "AutoViT", 2022 (patch embedding and resolution); Sandler et
al., "MobileNetV2", CVPR 2018 (the inverted residual).

An attention block is two slots, the attention and its feed-forward network. The position of a pixel reaches it through
the convolutions before it: the first block of a stage, which reduces the size, is always one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from hwnas.spaces.kinds import make_divisible
from hwnas.spaces.ops import Op, Shape, make_op
from hwnas.spaces.options import SpaceOptions
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Value, Variable, from_depth, own_values
from hwnas.spaces.space import Space
from hwnas.spaces.wiring import chain

CONVOLUTION, ATTENTION = "convolution", "attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """A family of hybrids of convolutions and attention.

    Attributes:
        widths: of the stages' outputs; the first block of each but the first has stride 2.
        depths: choices of the number of blocks of a stage, ascending.
        patches: choices of the side of a patch in pixels, ascending.
        kernels, expansions: choices of a convolution block, ascending.
        heads: choices of the number of heads of an attention block, ascending.
        head: width of a head.
        ffn: choices of the hidden width of its feed-forward network, as a multiple of the width, ascending.
        last: width of the last convolution.
        act: activation of the convolutions.
        resolutions: choices of the height of the images, ascending.
        classes, in_channels: defaults, overridden by the data.
        aspect: width to height of the images.
    """

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    patches: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    heads: tuple[int, ...]
    head: int
    ffn: tuple[int, ...]
    last: int
    act: str
    resolutions: tuple[int, ...]
    classes: int
    in_channels: int
    aspect: str = SQUARE

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(
            resolution=self.resolutions, kernels=self.kernels, expansions=self.expansions, aspect=self.aspect
        )

    def adjusted(self, options: SpaceOptions) -> Hybrid:
        """This family with options; those that are None keep their values.

        Raises:
            InvalidValue: a side is shorter than the product of the strides, or not a multiple of the patches.
        """
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        most = max(self.patches)
        check_sides(resolutions, most * 2 ** (len(self.widths) - 1), multiple=most, aspect=aspect)
        return replace(
            self,
            resolutions=resolutions,
            kernels=options.kernels or self.kernels,
            expansions=options.expansions or self.expansions,
            aspect=aspect,
        )

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes."""
        variables = [
            Variable(name="resolution", values=self.resolutions),
            Variable(name="patch", values=self.patches),
        ]
        sizes = ("resolution", "patch")
        slots = [Slot(name="patches", group="patches", variables=sizes, op=partial(_patches, self, in_channels))]
        for s in range(1, len(self.widths) + 1):
            depth = Variable(name=f"depth_{s}", values=self.depths)
            variables.append(depth)
            for b in range(1, max(self.depths) + 1):
                matters = from_depth(depth, b)
                fixed = b == 1 and s > 1  # it reduces the size
                mixer, kernel, expansion, heads, ffn = (
                    f"{kind}_{s}_{b}" for kind in ("mixer", "kernel", "expansion", "heads", "ffn")
                )
                read = (*sizes, *(() if matters is None else (depth.name,)))
                block = _Block(self, s, b, matters is not None, fixed)
                if fixed:
                    own = ((kernel, self.kernels), (expansion, self.expansions))
                    variables += [Variable(name=name, values=values, matters=matters) for name, values in own]
                    names = (*read, kernel, expansion)
                    slots.append(Slot(name=f"stage{s}.block{b}", group=f"stage{s}", variables=names, op=block.mixer))
                    continue
                variables.append(Variable(name=mixer, values=(CONVOLUTION, ATTENTION), matters=matters))
                for of, name, values in (
                    (CONVOLUTION, kernel, self.kernels),
                    (CONVOLUTION, expansion, self.expansions),
                    (ATTENTION, heads, self.heads),
                    (ATTENTION, ffn, self.ffn),
                ):
                    variables.append(Variable(name=name, values=values, matters=(mixer, (of,))))
                names = (*read, mixer, kernel, expansion, heads)
                slots.append(Slot(name=f"stage{s}.block{b}", group=f"stage{s}", variables=names, op=block.mixer))
                names = (*read, mixer, ffn)
                slots.append(Slot(name=f"stage{s}.block{b}.ffn", group=f"stage{s}", variables=names, op=block.ffn))
        slots.append(Slot(name="head", group="head", variables=sizes, op=partial(_head, self)))
        slots.append(Slot(name="classifier", group="head", variables=sizes, op=partial(_classifier, self, classes)))
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=in_channels,
            wiring=chain(slots),  # explicit: what is quantised at a residual depends on both of its readers
            aspect=self.aspect,
        )


@dataclass(frozen=True, slots=True)
class _Block:
    """The ops of a block.

    Attributes:
        net: the family.
        stage, number: counted from 1.
        optional: whether its slots read the depth.
        fixed: whether it is always a convolution, and has no mixer.
    """

    net: Hybrid
    stage: int
    number: int
    optional: bool
    fixed: bool

    def mixer(self, resolution: int, patch: int, *values: Value) -> Op | None:
        """The convolution, or the attention."""
        chosen = own_values(self.number, self.optional, values)
        if chosen is None:
            return None
        first = self.number == 1
        out = _shape(self.net, self.stage, resolution, patch)
        if self.fixed or chosen[0] == CONVOLUTION:
            kernel, expansion = (int(value) for value in chosen[(0 if self.fixed else 1) :][:2])
            shape = _shape(self.net, self.stage - 1, resolution, patch) if first else out
            return make_op(
                "mbconv",
                shape,
                out,
                mid=make_divisible(shape[0] * expansion),
                kernel=kernel,
                stride=2 if first and self.stage > 1 else 1,
                act=self.net.act,
                expand=1,
                se=0,
                skip=int(shape == out),
            )
        return make_op("attention", out, out, heads=int(chosen[-1]), head=self.net.head, norm="pre", masked=0)

    def ffn(self, resolution: int, patch: int, *values: Value) -> Op | None:
        """The feed-forward network of an attention; None for a convolution."""
        chosen = own_values(self.number, self.optional, values)
        if chosen is None or chosen[0] == CONVOLUTION:
            return None
        shape = _shape(self.net, self.stage, resolution, patch)
        return make_op("ffn", shape, shape, hidden=shape[0] * int(chosen[1]), act="gelu", norm="pre")


def _shape(net: Hybrid, stage: int, resolution: int, patch: int) -> Shape:
    """Shape of a stage's output; stage 0 is the patches, which have the first stage's width."""
    height, width = (side // patch for side in image_sides(resolution, net.aspect))
    for _ in range(stage - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
    return net.widths[max(stage - 1, 0)], height, width


def _patches(net: Hybrid, in_channels: int, resolution: int, patch: int) -> Op:
    shape = (in_channels, *image_sides(resolution, net.aspect))
    return make_op("patch-conv", shape, _shape(net, 0, resolution, patch), patch=patch, act=net.act)


def _head(net: Hybrid, resolution: int, patch: int) -> Op:
    shape = _shape(net, len(net.widths), resolution, patch)
    return make_op("conv", shape, (net.last, *shape[1:]), kernel=1, stride=1, act=net.act)


def _classifier(net: Hybrid, classes: int, resolution: int, patch: int) -> Op:
    _, *sides = _shape(net, len(net.widths), resolution, patch)
    return make_op("linear", (net.last, *sides), (classes,))


HYBRIDS = (
    Hybrid(
        name="hybrid-tiny",
        widths=(24, 48, 64),
        depths=(1, 2, 3),
        patches=(2, 4),
        kernels=(3, 5),
        expansions=(2, 3, 4),
        heads=(2, 4),
        head=16,
        ffn=(2, 4),
        last=192,
        act="hswish",
        resolutions=(24, 28, 32),
        classes=10,
        in_channels=1,
    ),
)
