"""A stem, one or two blocks, and a classifier: 27 networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from hwnas.spaces.ops import Op, make_op
from hwnas.spaces.slots import Slot, Variable
from hwnas.spaces.space import Space

_WIDTH, _SIDE = 8, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A family of networks of equal width."""

    in_channels: int = 1
    classes: int = 2

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks."""
        variables = (
            Variable(name="resolution", values=(_SIDE,)),
            Variable(name="depth", values=(1, 2)),
            Variable(name="kernel_1", values=(3, 5, 7)),
            Variable(name="expansion_1", values=(2, 3, 4)),
            Variable(name="kernel_2", values=(3, 5), matters=("depth", (2,))),
        )
        slots = (
            Slot(name="stem", group="stem", variables=("resolution",), op=partial(_stem, in_channels)),
            Slot(name="block1", group="body", variables=("kernel_1", "expansion_1"), op=_block),
            Slot(name="block2", group="body", variables=("depth", "kernel_2"), op=_second),
            Slot(name="classifier", group="head", variables=("resolution",), op=partial(_head, classes)),
        )
        return Space(name="plain", variables=variables, slots=slots, classes=classes, in_channels=in_channels)


def _stem(in_channels: int, side: int) -> Op:
    out = (_WIDTH, side // 2, side // 2)
    return make_op("conv", (in_channels, side, side), out, kernel=3, stride=2, act="relu")


def _block(kernel: int, expansion: int) -> Op:
    shape = (_WIDTH, _SIDE // 2, _SIDE // 2)
    mid = _WIDTH * expansion
    return make_op("mbconv", shape, shape, mid=mid, kernel=kernel, stride=1, act="relu", expand=1, se=0, skip=1)


def _second(depth: int, kernel: int) -> Op | None:
    return _block(kernel, 2) if depth == 2 else None


def _head(classes: int, side: int) -> Op:
    return make_op("linear", (_WIDTH, side // 2, side // 2), (classes,))


SPACE = Plain()
