"""Once-for-all's ResNet-50 space: elastic depth, width and expansion.

Source: mit-han-lab/once-for-all, `ofa_resnet50`; He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
(blocks); He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019 (three
convolutions in the stem; average pooling on the shortcut).

Widths and expansions are ratios; variables are integers, so they are in percent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hwnas.spaces.kinds import make_divisible
from hwnas.spaces.ops import Op, Shape, make_op
from hwnas.spaces.options import SpaceOptions
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Variable, from_depth
from hwnas.spaces.space import Space

_STRIDES = (1, 2, 2, 2)  # of the first block of each stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet:
    """A family of ResNet networks; widths at 100 percent.

    Attributes:
        stem: width of the last convolution of the stem; the others have half of it.
        stages: width of each stage's output.
        depths: for each stage the choices of the number of blocks, ascending.
        resolutions: the choices, ascending.
        widths: the choices of every width, in percent, ascending.
        expansions: width inside a block, in percent of its output's, ascending.
        bn_eps: added to the variance in BN.
        classes, in_channels: defaults, overridden by the data.
        aspect: width to height of the images.
    """

    name: str
    stem: int
    stages: tuple[int, ...]
    depths: tuple[tuple[int, ...], ...]
    resolutions: tuple[int, ...]
    widths: tuple[int, ...]
    expansions: tuple[int, ...]
    bn_eps: float
    classes: int
    in_channels: int
    aspect: str = SQUARE

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(
            resolution=self.resolutions, width=1.0, expansions=self.expansions, aspect=self.aspect
        )

    def adjusted(self, options: SpaceOptions) -> ResNet:
        """This family with options; those that are None keep their values. `width` scales the widths at 100 percent.

        Raises:
            InvalidValue: a side is shorter than the product of the strides, or not an integer.
        """
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        check_sides(resolutions, 2 ** (len(self.stages) + 1), aspect=aspect)
        stem, *stages = (make_divisible(base * (options.width or 1.0)) for base in (self.stem, *self.stages))
        return replace(
            self,
            resolutions=resolutions,
            stem=stem,
            stages=tuple(stages),
            expansions=options.expansions or self.expansions,
            aspect=aspect,
        )

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes.

        ``width_stem`` is the width of the first two convolutions, ``width_0`` of the third, ``width_s`` of stage s.
        """
        variables = [
            Variable(name="resolution", values=self.resolutions),
            Variable(name="width_stem", values=self.widths),
            Variable(name="depth_stem", values=(0, 1)),
            Variable(name="width_0", values=self.widths),
        ]
        stem = ("resolution", "width_stem")
        slots = [
            Slot(name="stem.conv1", group="stem", variables=stem, op=partial(_first, self, in_channels)),
            Slot(name="stem.conv2", group="stem", variables=(*stem, "depth_stem"), op=partial(_second, self)),
            Slot(name="stem.conv3", group="stem", variables=(*stem, "width_0"), op=partial(_third, self)),
            Slot(name="stem.pool", group="stem", variables=("resolution", "width_0"), op=partial(_pool, self)),
        ]
        for s, depths in enumerate(self.depths, start=1):
            variables.append(Variable(name=f"width_{s}", values=self.widths))
            depth = Variable(name=f"depth_{s}", values=depths)
            variables.append(depth)
            for b in range(1, max(depths) + 1):
                matters = from_depth(depth, b)
                expansion = f"expansion_{s}_{b}"
                variables.append(Variable(name=expansion, values=self.expansions, matters=matters))
                read: tuple[str, ...] = ("resolution", f"width_{s}", expansion)
                op: Callable[..., Op | None]
                if b == 1:
                    read, op = (*read, f"width_{s - 1}"), partial(_first_block, self, s)
                elif matters:
                    read, op = (*read, f"depth_{s}"), partial(_optional_block, self, s, b)
                else:
                    op = partial(_block, self, s)
                slots.append(Slot(name=f"stage{s}.block{b}", group=f"stage{s}", variables=read, op=op))
        last = ("resolution", f"width_{len(self.stages)}")
        slots.append(Slot(name="classifier", group="head", variables=last, op=partial(_classifier, self, classes)))
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=in_channels,
            bn_eps=self.bn_eps,
            aspect=self.aspect,
        )


def _halved(net: ResNet, resolution: int, times: int) -> tuple[int, int]:
    """Height and width of the images, after a number of halvings, each rounded up."""
    height, width = image_sides(resolution, net.aspect)
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def _stem(net: ResNet, resolution: int, width: int) -> Shape:
    return make_divisible(make_divisible(net.stem * width / 100) // 2), *_halved(net, resolution, 1)


def _stage(net: ResNet, s: int, resolution: int, width: int) -> Shape:
    """Shape of a stage's output; stage 0 is the stem with its pooling."""
    channels = make_divisible((net.stages[s - 1] if s else net.stem) * width / 100)
    return channels, *_halved(net, resolution, max(2, s + 1))


def _first(net: ResNet, in_channels: int, resolution: int, width: int) -> Op:
    shape = (in_channels, *image_sides(resolution, net.aspect))
    return make_op("conv", shape, _stem(net, resolution, width), kernel=3, stride=2, act="relu")


def _second(net: ResNet, resolution: int, width: int, depth: int) -> Op | None:
    shape = _stem(net, resolution, width)
    return make_op("residual-conv", shape, shape, kernel=3, act="relu") if depth else None


def _third(net: ResNet, resolution: int, width: int, out: int) -> Op:
    shape = _stem(net, resolution, width)
    output = (_stage(net, 0, resolution, out)[0], *shape[1:])
    return make_op("conv", shape, output, kernel=3, stride=1, act="relu")


def _pool(net: ResNet, resolution: int, width: int) -> Op:
    output = _stage(net, 0, resolution, width)
    return make_op("maxpool", (output[0], *_halved(net, resolution, 1)), output, kernel=3, stride=2)


def _bottleneck(input_: Shape, output: Shape, expansion: int, *, stride: int, downsample: int) -> Op:
    mid = make_divisible(round(output[0] * expansion / 100))
    return make_op("bottleneck", input_, output, mid=mid, stride=stride, act="relu", downsample=downsample)


def _first_block(net: ResNet, s: int, resolution: int, width: int, expansion: int, before: int) -> Op:
    input_, output = _stage(net, s - 1, resolution, before), _stage(net, s, resolution, width)
    return _bottleneck(input_, output, expansion, stride=_STRIDES[s - 1], downsample=1)


def _block(net: ResNet, s: int, resolution: int, width: int, expansion: int) -> Op:
    shape = _stage(net, s, resolution, width)
    return _bottleneck(shape, shape, expansion, stride=1, downsample=0)


def _optional_block(net: ResNet, s: int, b: int, resolution: int, width: int, expansion: int, depth: int) -> Op | None:
    return _block(net, s, resolution, width, expansion) if b <= depth else None


def _classifier(net: ResNet, classes: int, resolution: int, width: int) -> Op:
    return make_op("linear", _stage(net, len(net.stages), resolution, width), (classes,))


RESNETS = (
    ResNet(
        name="resnet50",
        stem=64,
        stages=(256, 512, 1024, 2048),
        depths=((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4)),
        resolutions=tuple(range(128, 225, 4)),
        widths=(65, 80, 100),
        expansions=(20, 25, 35),
        bn_eps=1e-5,
        classes=1000,
        in_channels=3,
    ),
)
