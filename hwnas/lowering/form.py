"""What every form of lowered program can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hwnas.spaces import Op
from hwnas.spaces.ops import Shape
from hwnas.targets import Recipe

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class OpsProgram:
    """What a simulated machine takes in a program's place: its ops."""

    ops: tuple[Op, ...]


Program: TypeAlias = "onnx.ModelProto | nn.Module | OpsProgram"


class Form(ABC):
    """How networks and ops are turned into programs under one recipe.

    What is profiled is what is deployed: `lower` and `lower_ops` go through the same export, so that
    ``assemble`` of a network's ops is the graph that ``lower`` gives for the network.
    """

    filename: str

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def lower(self, network: nn.Module, shape: Shape, images: Tensor | None = None) -> Program:
        """A trained network for images ``(batch, *shape)``, with BN folded into the convolutions.

        Args:
            network: the network.
            shape: of one image.
            images: ``(n, *shape)`` of the training split, `images_needed` of them. int8 must have them; without them
                fp16 does not look for values that would overflow.

        Raises:
            InvalidValue: the precision is int8 and there are no images, or they are constant or not finite.
            GraphError: the graph is not one that the runtime takes.
        """

    @property
    def images_needed(self) -> int:
        """Images of the training split that `lower` takes."""
        return 0

    @abstractmethod
    def lower_ops(self, ops: Sequence[Op], *, wired: bool = False) -> dict[Op, Program]:
        """Each op with random weights, in few export calls (an export has a fixed cost of seconds).

        Args:
            ops: the ops.
            wired: whether they are parts of cells. What an int8 graph quantises depends there on who reads a value, so
                such parts are in int8 only once they are wired (`assemble`) or made ready to be timed alone (`tied`).
        """

    @abstractmethod
    def assemble(self, programs: Sequence[Program], reads: Sequence[tuple[int, ...]] | None = None) -> Program:
        """Programs wired into one.

        Args:
            programs: of ops, in the order of execution; the last one gives the output.
            reads: for each, the positions of those whose outputs it reads, `FROM_IMAGE` for the input; None for a
                chain, each reading the one before.
        """

    @abstractmethod
    def another(self, program: Program, number: int) -> Program:
        """The program of an op with random weights, with others; 0 for the same.

        An op that stands twice in a network with one input would be computed once if its weights were the same.
        """

    @abstractmethod
    def tied(self, program: Program) -> Program:
        """The program of an op as it is timed alone: with one input, and in the recipe's precision."""

    def float_layers(self, program: Program) -> list[str]:
        """Names of the layers that an int8 recipe left in float, because they cost too much accuracy."""
        return []

    @abstractmethod
    def write(self, program: Program, folder: Path) -> Path:
        """Write a program into a folder, whole or not at all; returns the file's path.

        Raises:
            OutputError: the file cannot be written.
        """

    def spooled(self, program: Program, folder: Path) -> Program | Path:
        """The program as a file in a folder, where it has weights that no other program shares; else itself.

        Raises:
            OutputError: the file cannot be written.
        """
        return program


def without_size(op: Op) -> Op:
    """The op without its image size.

    Convolutions, means over the image and linear layers are exported the same way at any size (a test holds it),
    so ops that differ in nothing else are exported once and given their size afterwards.
    """
    return Op(op.kind, op.input[:1], op.output[:1], op.attributes)


def chained(count: int) -> list[tuple[int, ...]]:
    """What each of so many programs reads in a chain: the one before."""
    return [(i - 1,) for i in range(count)]
