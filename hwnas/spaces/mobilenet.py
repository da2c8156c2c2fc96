"""MobileNet spaces: once-for-all's MobileNetV3 and ProxylessNAS, and one of the same blocks for small images.

Source: Cai et al., "Once for All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020
(section 3.3 for the space); Howard et al., "Searching for MobileNetV3", ICCV 2019 (blocks); Cai et al., "ProxylessNAS:
Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import partial

from hwnas.spaces.kinds import make_divisible
from hwnas.spaces.ops import Op, make_op
from hwnas.spaces.options import SpaceOptions, StageOptions
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Variable, from_depth
from hwnas.spaces.space import Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Settings common to the blocks of a stage.

    Attributes:
        width: of the output, before the multiplier.
        stride: of the first block.
        act: activation.
        se: whether blocks have a squeeze-excitation.
        depths: choices of the number of blocks, ascending.
    """

    width: int
    stride: int
    act: str
    se: bool
    depths: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNet:
    """A family of MobileNet networks; widths before the multiplier.

    Attributes:
        stem: width of the first convolution (stride 2).
        act: activation of the stem, the head and the classifier.
        first: width and activation of the block after the stem, which is fixed and does not expand.
        head: width of the last convolution.
        hidden: width of the layer before the last; None if there is none.
        resolutions, kernels, expansions: the choices, ascending.
        bn_eps: added to the variance in BN.
        classes, in_channels: defaults, overridden by the data.
        aspect: width to height of the images.
    """

    name: str
    width_mult: float
    stem: int
    act: str
    first: tuple[int, str]
    stages: tuple[Stage, ...]
    head: int
    hidden: int | None
    resolutions: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    bn_eps: float
    classes: int
    in_channels: int
    aspect: str = SQUARE

    def width(self, base: int) -> int:
        """A width after the multiplier."""
        return make_divisible(base * self.width_mult)

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(
            resolution=self.resolutions,
            width=self.width_mult,
            kernels=self.kernels,
            expansions=self.expansions,
            stages=tuple(StageOptions.model_construct(**asdict(stage)) for stage in self.stages),
            aspect=self.aspect,
        )

    def adjusted(self, options: SpaceOptions) -> MobileNet:
        """This family with options; those that are None keep their values.

        Raises:
            InvalidValue: a side is shorter than the product of the strides, or not an integer.
        """
        stages = self.stages
        if options.stages is not None:
            stages = tuple(
                Stage(width=s.width, stride=s.stride, act=s.act, se=s.se, depths=s.depths) for s in options.stages
            )
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        check_sides(resolutions, 2 * math.prod(stage.stride for stage in stages), aspect=aspect)
        return replace(
            self,
            resolutions=resolutions,
            width_mult=self.width_mult if options.width is None else options.width,
            kernels=options.kernels or self.kernels,
            expansions=options.expansions or self.expansions,
            stages=stages,
            aspect=aspect,
        )

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes."""
        variables = [Variable(name="resolution", values=self.resolutions)]
        slots = [
            Slot(name="stem", group="stem", variables=("resolution",), op=partial(_stem, self, in_channels)),
            Slot(name="stage0.block1", group="stem", variables=("resolution",), op=partial(_first, self)),
        ]
        for s, stage in enumerate(self.stages, start=1):
            depth = Variable(name=f"depth_{s}", values=stage.depths)
            variables.append(depth)
            for b in range(1, max(stage.depths) + 1):
                matters = from_depth(depth, b)
                kernel, expansion = f"kernel_{s}_{b}", f"expansion_{s}_{b}"
                variables.append(Variable(name=kernel, values=self.kernels, matters=matters))
                variables.append(Variable(name=expansion, values=self.expansions, matters=matters))
                slots.append(
                    Slot(
                        name=f"stage{s}.block{b}",
                        group=f"stage{s}",
                        # A block that always exists does not read the depth: its array has one axis fewer.
                        variables=("resolution", *((f"depth_{s}",) if matters else ()), kernel, expansion),
                        op=partial(_optional_block if matters else _block, self, s, b),
                    )
                )
        slots.append(Slot(name="head", group="head", variables=("resolution",), op=partial(_head, self)))
        slots.append(
            Slot(
                name="classifier",
                group="head",
                variables=("resolution",),
                op=partial(_classifier, self, classes),
            )
        )
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=in_channels,
            bn_eps=self.bn_eps,
            aspect=self.aspect,
        )


def _sides(net: MobileNet, resolution: int, stage: int) -> tuple[int, int]:
    """Height and width of a stage's output; stage 0 is the stem."""
    height, width = image_sides(resolution, net.aspect)
    for stride in (2, *(s.stride for s in net.stages[:stage])):
        height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
    return height, width


def _stem(net: MobileNet, in_channels: int, resolution: int) -> Op:
    shape = (in_channels, *image_sides(resolution, net.aspect))
    output = (net.width(net.stem), *_sides(net, resolution, 0))
    return make_op("conv", shape, output, kernel=3, stride=2, act=net.act)


def _first(net: MobileNet, resolution: int) -> Op:
    sides, inp, (base, act) = _sides(net, resolution, 0), net.width(net.stem), net.first
    out = net.width(base)
    return make_op(
        "mbconv",
        (inp, *sides),
        (out, *sides),
        mid=inp,
        kernel=3,
        stride=1,
        act=act,
        expand=0,
        se=0,
        skip=int(inp == out),
    )


def _block(net: MobileNet, s: int, b: int, resolution: int, kernel: int, expansion: int) -> Op:
    stage = net.stages[s - 1]
    out, sides = net.width(stage.width), _sides(net, resolution, s)
    if b == 1:
        width = net.width(net.stages[s - 2].width if s > 1 else net.first[0])
        in_sides, stride = _sides(net, resolution, s - 1), stage.stride
    else:
        width, in_sides, stride = out, sides, 1
    return make_op(
        "mbconv",
        (width, *in_sides),
        (out, *sides),
        mid=make_divisible(round(width * expansion)),
        kernel=kernel,
        stride=stride,
        act=stage.act,
        expand=1,
        se=int(stage.se),
        skip=int(stride == 1 and width == out),
    )


def _optional_block(net: MobileNet, s: int, b: int, resolution: int, depth: int, kernel: int, exp: int) -> Op | None:
    return _block(net, s, b, resolution, kernel, exp) if b <= depth else None


def _head(net: MobileNet, resolution: int) -> Op:
    sides = _sides(net, resolution, len(net.stages))
    shape = (net.width(net.stages[-1].width), *sides)
    return make_op("conv", shape, (net.width(net.head), *sides), kernel=1, stride=1, act=net.act)


def _classifier(net: MobileNet, classes: int, resolution: int) -> Op:
    shape = (net.width(net.head), *_sides(net, resolution, len(net.stages)))
    if net.hidden is None:
        return make_op("linear", shape, (classes,))
    return make_op("classifier", shape, (classes,), hidden=net.width(net.hidden), act=net.act)


_DEPTHS = (2, 3, 4)
_RESOLUTIONS = tuple(range(128, 225, 4))


def _mobilenetv3(name: str, width_mult: float) -> MobileNet:
    return MobileNet(
        name=name,
        width_mult=width_mult,
        stem=16,
        act="hswish",
        first=(16, "relu"),
        stages=(
            Stage(width=24, stride=2, act="relu", se=False, depths=_DEPTHS),
            Stage(width=40, stride=2, act="relu", se=True, depths=_DEPTHS),
            Stage(width=80, stride=2, act="hswish", se=False, depths=_DEPTHS),
            Stage(width=112, stride=1, act="hswish", se=True, depths=_DEPTHS),
            Stage(width=160, stride=2, act="hswish", se=True, depths=_DEPTHS),
        ),
        head=960,
        hidden=1280,
        resolutions=_RESOLUTIONS,
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        bn_eps=1e-5,
        classes=1000,
        in_channels=3,
    )


MOBILENETS = (
    _mobilenetv3("mobilenetv3", 1.0),
    _mobilenetv3("mobilenetv3-w1.2", 1.2),
    # For images between those of `mobilenetv3-tiny` and `mobilenetv3`. From Howard et al. 2019, table 2
    # (MobileNetV3-Small): stem, widths, activations and squeeze-excitation of the stages, head and hidden layer. Depths
    # and kernels include the table's; its expansions are 3 to 6. Unlike there, the first block has stride 1 and no
    # squeeze-excitation: a total stride of 16 leaves a side of 3 to 8 pixels, as the table's 32 leaves 7 of 224.
    MobileNet(
        name="mobilenetv3-small",
        width_mult=1.0,
        stem=16,
        act="hswish",
        first=(16, "relu"),
        stages=(
            Stage(width=24, stride=2, act="relu", se=False, depths=(1, 2, 3)),
            Stage(width=40, stride=2, act="hswish", se=True, depths=(2, 3, 4)),
            Stage(width=48, stride=1, act="hswish", se=True, depths=(1, 2, 3)),
            Stage(width=96, stride=2, act="hswish", se=True, depths=(2, 3, 4)),
        ),
        head=576,
        hidden=1024,
        resolutions=tuple(range(48, 129, 16)),
        kernels=(3, 5),
        expansions=(3, 4, 6),
        bn_eps=1e-5,
        classes=10,
        in_channels=3,
    ),
    MobileNet(
        name="mobilenetv3-tiny",
        width_mult=1.0,
        stem=16,
        act="hswish",
        first=(16, "relu"),
        stages=(
            Stage(width=16, stride=2, act="relu", se=False, depths=(1, 2, 3)),
            Stage(width=32, stride=2, act="hswish", se=True, depths=(1, 2, 3)),
            Stage(width=48, stride=1, act="hswish", se=True, depths=(1, 2, 3)),
        ),
        head=192,
        hidden=192,
        resolutions=(24, 28, 32),
        kernels=(3, 5, 7),
        expansions=(2, 3, 4),
        bn_eps=1e-5,
        classes=10,
        in_channels=1,
    ),
    MobileNet(
        name="proxyless-w1.3",
        width_mult=1.3,
        stem=32,
        act="relu6",
        first=(16, "relu6"),
        stages=(
            *(
                Stage(width=width, stride=stride, act="relu6", se=False, depths=_DEPTHS)
                for width, stride in ((24, 2), (40, 2), (80, 2), (96, 1), (192, 2))
            ),
            Stage(width=320, stride=1, act="relu6", se=False, depths=(1,)),
        ),
        head=1280,
        hidden=None,
        resolutions=_RESOLUTIONS,
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        bn_eps=1e-3,
        classes=1000,
        in_channels=3,
    ),
)
