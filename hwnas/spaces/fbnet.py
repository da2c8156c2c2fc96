"""FBNet: a chain of 22 layers, each one of 9 candidates.

Source: Wu et al., "FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable Neural Architecture Search", CVPR
2019 (table 1: widths and strides; table 2: candidates; figure 3: the block). The numbers of the candidates are those of
the latencies in Lee et al., "HELP", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from hwnas.errors import InvalidValue
from hwnas.spaces.arch import Arch
from hwnas.spaces.kinds import make_divisible
from hwnas.spaces.ops import Op, make_op
from hwnas.spaces.options import SpaceOptions
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Value, Variable
from hwnas.spaces.space import Space

# kernel, expansion, groups of the 1x1 convolutions; in the order of the numbers 0 to 7, and 8 is skip
_BLOCKS = {
    "k3-e1": (3, 1, 1),
    "k3-e1-g2": (3, 1, 2),
    "k3-e3": (3, 3, 1),
    "k3-e6": (3, 6, 1),
    "k5-e1": (5, 1, 1),
    "k5-e1-g2": (5, 1, 2),
    "k5-e3": (5, 3, 1),
    "k5-e6": (5, 6, 1),
}
CANDIDATES = (*_BLOCKS, "skip")
# ascending by cost, apart from the skips of layers 14 and 22, which are convolutions of stride 1
_ASCENDING = ("skip", "k3-e1-g2", "k5-e1-g2", "k3-e1", "k5-e1", "k3-e3", "k5-e3", "k3-e6", "k5-e6")
_STAGES = (
    (16, 1, 1),
    (24, 4, 2),
    (32, 4, 2),
    (64, 4, 2),
    (112, 4, 1),
    (184, 4, 2),
    (352, 1, 1),
)  # width, layers, stride
_STEM, _HEAD = 16, 1504
_STRIDES = 32  # all together, with that of the stem


@dataclass(frozen=True, slots=True, kw_only=True)
class FBNet:
    """A family of FBNet networks.

    Attributes:
        resolutions: the choices, ascending.
        width_mult: of all widths.
        classes, in_channels: defaults, overridden by the data.
        aspect: width to height of the images.
    """

    name: str
    resolutions: tuple[int, ...] = (224,)
    width_mult: float = 1.0
    classes: int = 1000
    in_channels: int = 3
    aspect: str = SQUARE

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(resolution=self.resolutions, width=self.width_mult, aspect=self.aspect)

    def adjusted(self, options: SpaceOptions) -> FBNet:
        """This family with options; those that are None keep their values.

        Raises:
            InvalidValue: a side is shorter than the product of the strides, or not an integer.
        """
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        check_sides(resolutions, _STRIDES, aspect=aspect)
        width_mult = self.width_mult if options.width is None else options.width
        return replace(self, resolutions=resolutions, width_mult=width_mult, aspect=aspect)

    def width(self, base: int) -> int:
        """A width after the multiplier."""
        return make_divisible(base * self.width_mult)

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes."""
        variables = [Variable(name="resolution", values=self.resolutions)]
        fixed = ("resolution",)
        slots = [Slot(name="stem", group="stem", variables=fixed, op=partial(_stem, self, in_channels))]
        width, scale, layer = self.width(_STEM), 2, 0
        for s, (base, layers, first_stride) in enumerate(_STAGES, start=1):
            for b in range(layers):
                layer += 1
                stride = first_stride if b == 0 else 1
                variables.append(Variable(name=f"layer_{layer}", values=_ASCENDING))
                op = partial(_layer, self, width, self.width(base), scale, stride)
                slots.append(
                    Slot(name=f"stage{s}.layer{layer}", group=f"stage{s}", variables=(*fixed, f"layer_{layer}"), op=op)
                )
                width, scale = self.width(base), scale * stride
        slots.append(Slot(name="head", group="head", variables=fixed, op=partial(_head, self, width)))
        slots.append(Slot(name="classifier", group="head", variables=fixed, op=partial(_classifier, self, classes)))
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=in_channels,
            aspect=self.aspect,
            shares_weights=False,
        )


def _sides(net: FBNet, resolution: int, scale: int) -> tuple[int, int]:
    """Height and width of the tensors after strides of `scale` together."""
    height, width = image_sides(resolution, net.aspect)
    return -(-height // scale), -(-width // scale)


def _stem(net: FBNet, in_channels: int, resolution: int) -> Op:
    shape = (in_channels, *image_sides(resolution, net.aspect))
    return make_op("conv", shape, (net.width(_STEM), *_sides(net, resolution, 2)), kernel=3, stride=2, act="relu")


def _layer(net: FBNet, inp: int, out: int, scale: int, stride: int, resolution: int, candidate: str) -> Op | None:
    """A layer; a skip that changes the shape is a 1x1 convolution, as in the authors' code."""
    shape, output = (inp, *_sides(net, resolution, scale)), (out, *_sides(net, resolution, scale * stride))
    same_shape = stride == 1 and inp == out
    if candidate == "skip":
        return None if same_shape else make_op("conv", shape, output, kernel=1, stride=stride, act="relu")
    kernel, expansion, groups = _BLOCKS[candidate]
    mid, same = inp * expansion, int(same_shape)
    if groups > 1:
        return make_op(
            "grouped-mbconv",
            shape,
            output,
            mid=mid,
            kernel=kernel,
            stride=stride,
            act="relu",
            groups=groups,
            skip=same,
        )
    return make_op(
        "mbconv", shape, output, mid=mid, kernel=kernel, stride=stride, act="relu", expand=1, se=0, skip=same
    )


def _head(net: FBNet, inp: int, resolution: int) -> Op:
    sides = _sides(net, resolution, _STRIDES)
    return make_op("conv", (inp, *sides), (net.width(_HEAD), *sides), kernel=1, stride=1, act="relu")


def _classifier(net: FBNet, classes: int, resolution: int) -> Op:
    return make_op("linear", (net.width(_HEAD), *_sides(net, resolution, _STRIDES)), (classes,))


def fbnet_numbers(arch: Mapping[str, Value]) -> str:
    """The candidates of an arch's layers as numbers 0 to 8, between spaces."""
    count = sum(layers for _, layers, _ in _STAGES)
    return " ".join(str(CANDIDATES.index(str(arch[f"layer_{i}"]))) for i in range(1, count + 1))


def parse_fbnet(space: Space, text: str) -> Arch:
    """The arch of 22 numbers between spaces, at the space's largest resolution.

    Raises:
        InvalidValue: there are not 22 numbers from 0 to 8, or the space is restricted to other candidates.
    """
    names = [name for name in space.column if name.startswith("layer_")]
    parts = text.split()
    if len(parts) != len(names):
        raise InvalidValue(f"{len(parts)} numbers; an arch of {space.name} is {len(names)} numbers from 0 to 8")
    for name, part in zip(names, parts, strict=True):
        if part not in map(str, range(len(CANDIDATES))):
            raise InvalidValue(f"{name} is {part!r}; the candidates are the numbers 0 to {len(CANDIDATES) - 1}")
    return space.arch(
        {**space.largest, **{name: CANDIDATES[int(part)] for name, part in zip(names, parts, strict=True)}}
    )


FBNETS = (FBNet(name="fbnet"),)
