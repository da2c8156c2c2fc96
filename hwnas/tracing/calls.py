"""A use of an operator in a trace, and what a rule says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hwnas.tracing.dims import IMAGES, Dim, Dims, Groups, batch, constant


@dataclass(frozen=True, slots=True)
class Read:
    """An input or weight that an operator reads.

    Attributes:
        name: of the value or the weight.
        shape: in the trace.
        dims: its dimensions.
        weight: whether it is a weight.
    """

    name: str
    shape: tuple[int, ...]
    dims: Dims
    weight: bool = False


@dataclass(frozen=True, slots=True)
class Sized:
    """An argument that depends on widths: the size of a dimension, or of several.

    Attributes:
        dims: the dimensions; one of a batch is written as -1.
        single: whether the argument is one number instead of a list.
    """

    dims: Dims
    single: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What an operator makes.

    Attributes:
        dims: of its output, or of each output.
        args: position of an argument that depends on widths -> its value.
        weights: name of a weight -> its dimensions.
    """

    dims: Dims | list[Dims]
    args: dict[int, Sized]
    weights: dict[str, Dims]


class Call:
    """One use of an operator in the trace.

    Args:
        groups: of the network.
        name: of the node.
        args: arguments; values and weights as `Read`.
        shapes: of the outputs in the trace.
        several: whether it has several outputs.
    """

    def __init__(
        self, groups: Groups, name: str, args: Sequence[Any], shapes: Sequence[tuple[int, ...]], *, several: bool
    ) -> None:
        self.groups, self.name, self.args = groups, name, list(args)
        self.shapes, self.several = shapes, several

    @property
    def reads(self) -> list[Read]:
        """All values and weights that it reads."""
        found: list[Read] = []
        for arg in self.args:
            found += [each for each in (arg if isinstance(arg, list | tuple) else [arg]) if isinstance(each, Read)]
        return found

    def arg(self, place: int, default: Any = None) -> Any:  # noqa: ANN401 (torch's arguments have any type)
        """An argument, or its default."""
        return self.args[place] if place < len(self.args) else default

    def axis(self, place: int, rank: int, default: int = 0) -> int:
        """An argument that is an axis, from 0."""
        found: int = self.arg(place, default)
        return found % rank

    def freeze(self, *dims: Dim) -> None:
        """Note that dimensions cannot be narrower because of this operator."""
        self.groups.freeze(dims, self.name)

    def made(
        self,
        dims: Dims | list[Dims],
        args: dict[int, Sized] | None = None,
        weights: dict[str, Dims] | None = None,
    ) -> Made:
        """The result of a rule."""
        return Made(dims, args or {}, weights or {})


Rule: TypeAlias = Callable[[Call], Made]


class Images(int):
    """The number of images in the trace, as an argument."""


def unknown(call: Call) -> Made:
    """An operator without a rule: nothing that it reads can be narrower."""
    for read in call.reads:
        call.freeze(*read.dims)
    images = any(dim.batch for read in call.reads for dim in read.dims)
    outputs = [
        tuple(batch(size) if images and size % IMAGES == 0 else constant(size) for size in shape)
        for shape in call.shapes
    ]
    return call.made(outputs if call.several else outputs[0])
