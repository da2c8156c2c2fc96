"""MobileNetV3 spaces: once-for-all's, and a small one of the same blocks for small images.

Source: Cai et al., "Once for All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020
(section 3.3 for the space); Howard et al., "Searching for MobileNetV3", ICCV 2019 (blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from hwnas.spaces.ops import Op, make_divisible, make_op
from hwnas.spaces.space import Slot, Space, Variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What the blocks of a stage share: output width, stride of the first block, activation, squeeze-excitation."""

    width: int
    stride: int
    act: str
    se: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNet:
    """A family of MobileNetV3 networks; widths before the multiplier.

    Attributes:
        stem: width of the first convolution (stride 2) and of the block after it.
        head: width of the last convolution.
        hidden: width of the layer before the last.
        resolutions, depths, kernels, expansions: the choices, ascending.
        classes, in_channels: unless the data says otherwise.
    """

    name: str
    width_mult: float
    stem: int
    stages: tuple[Stage, ...]
    head: int
    hidden: int
    resolutions: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    classes: int
    in_channels: int

    def width(self, base: int) -> int:
        """A width after the multiplier."""
        return make_divisible(base * self.width_mult)

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes."""
        variables = [Variable(name="resolution", values=self.resolutions)]
        slots = [
            Slot(name="stem", group="stem", variables=("resolution",), op=partial(_stem, self, in_channels)),
            Slot(name="stage0.block1", group="stem", variables=("resolution",), op=partial(_first, self)),
        ]
        for s in range(1, len(self.stages) + 1):
            variables.append(Variable(name=f"depth_{s}", values=self.depths))
            for b in range(1, max(self.depths) + 1):
                requires = (f"depth_{s}", b) if b > min(self.depths) else None
                kernel, expansion = f"kernel_{s}_{b}", f"expansion_{s}_{b}"
                variables.append(Variable(name=kernel, values=self.kernels, requires=requires))
                variables.append(Variable(name=expansion, values=self.expansions, requires=requires))
                slots.append(
                    Slot(
                        name=f"stage{s}.block{b}",
                        group=f"stage{s}",
                        # A block that is always there does not read the depth: its array has one axis less.
                        variables=("resolution", *((f"depth_{s}",) if requires else ()), kernel, expansion),
                        op=partial(_optional_block if requires else _block, self, s, b),
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
        )


def _side(net: MobileNet, resolution: int, stage: int) -> int:
    """Side of the feature map that leaves a stage; stage 0 is the stem."""
    side = (resolution + 1) // 2
    for s in net.stages[:stage]:
        side = (side - 1) // s.stride + 1
    return side


def _stem(net: MobileNet, in_channels: int, resolution: int) -> Op:
    side, width = _side(net, resolution, 0), net.width(net.stem)
    shape = (in_channels, resolution, resolution)
    return make_op("conv", shape, (width, side, side), kernel=3, stride=2, act="hswish")


def _first(net: MobileNet, resolution: int) -> Op:
    side, width = _side(net, resolution, 0), net.width(net.stem)
    shape = (width, side, side)
    return make_op("mbconv", shape, shape, mid=width, kernel=3, stride=1, act="relu", expand=0, se=0, skip=1)


def _block(net: MobileNet, s: int, b: int, resolution: int, kernel: int, expansion: int) -> Op:
    stage = net.stages[s - 1]
    out, side = net.width(stage.width), _side(net, resolution, s)
    if b == 1:
        width = net.width(net.stages[s - 2].width if s > 1 else net.stem)
        in_side, stride = _side(net, resolution, s - 1), stage.stride
    else:
        width, in_side, stride = out, side, 1
    return make_op(
        "mbconv",
        (width, in_side, in_side),
        (out, side, side),
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
    side = _side(net, resolution, len(net.stages))
    shape = (net.width(net.stages[-1].width), side, side)
    return make_op("conv", shape, (net.width(net.head), side, side), kernel=1, stride=1, act="hswish")


def _classifier(net: MobileNet, classes: int, resolution: int) -> Op:
    side = _side(net, resolution, len(net.stages))
    shape = (net.width(net.head), side, side)
    return make_op("classifier", shape, (classes,), hidden=net.width(net.hidden), act="hswish")


def _once_for_all(name: str, width_mult: float) -> MobileNet:
    return MobileNet(
        name=name,
        width_mult=width_mult,
        stem=16,
        stages=(
            Stage(width=24, stride=2, act="relu", se=False),
            Stage(width=40, stride=2, act="relu", se=True),
            Stage(width=80, stride=2, act="hswish", se=False),
            Stage(width=112, stride=1, act="hswish", se=True),
            Stage(width=160, stride=2, act="hswish", se=True),
        ),
        head=960,
        hidden=1280,
        resolutions=tuple(range(128, 225, 4)),
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        classes=1000,
        in_channels=3,
    )


MOBILENETS = (
    _once_for_all("mobilenetv3", 1.0),
    _once_for_all("mobilenetv3-w1.2", 1.2),
    MobileNet(
        name="mobilenetv3-tiny",
        width_mult=1.0,
        stem=16,
        stages=(
            Stage(width=16, stride=2, act="relu", se=False),
            Stage(width=32, stride=2, act="hswish", se=True),
            Stage(width=48, stride=1, act="hswish", se=True),
        ),
        head=192,
        hidden=192,
        resolutions=(24, 28, 32),
        depths=(1, 2, 3),
        kernels=(3, 5, 7),
        expansions=(2, 3, 4),
        classes=10,
        in_channels=1,
    ),
)
