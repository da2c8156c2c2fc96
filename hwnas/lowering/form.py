"""The interface of all forms of lowered programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from hwnas.spaces import Op
from hwnas.spaces.ops import Shape
from hwnas.targets import Recipe

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class OpsProgram:
    """A program of a simulated machine: its ops."""

    ops: tuple[Op, ...]


InputType = Literal["float32", "int64"]
Program: TypeAlias = "onnx.ModelProto | nn.Module | OpsProgram"


class Form(ABC):
    """Lowers networks and ops to programs under one recipe.

    `lower` and `lower_ops` use the same export, so that ``assemble`` of a network's ops is the graph that ``lower``
    returns for the network: the profiled graph is the deployed graph.
    """

    filename: str

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def lower(
        self, network: nn.Module, shape: Shape, images: Tensor | None = None, *, dtype: InputType = "float32"
    ) -> Program:
        """A trained network for inputs ``(batch, *shape)``, with BN folded into the convolutions.

        Args:
            network: the network.
            shape: of one input.
            images: ``(n, *shape)`` of the training split, `images_needed` of them. int8 requires them; without them
                fp16 does not check activations for overflow.
            dtype: of the inputs, "int64" for tokens.

        Raises:
            InvalidValue: the precision is int8 and the images are missing, constant or not finite.
            GraphError: the runtime does not accept the graph.
        """

    @property
    def images_needed(self) -> int:
        """Number of images of the training split that `lower` needs."""
        return 0

    @abstractmethod
    def lower_ops(self, ops: Sequence[Op], *, wired: bool = False) -> dict[Op, Program]:
        """Each op with random weights, in few export calls (an export has a fixed cost of seconds).

        Args:
            ops: the ops.
            wired: whether they are parts of cells. What is quantised then depends on the readers of a value, so such
                parts become int8 only when they are wired (`assemble`) or prepared for timing alone (`tied`).
        """

    @abstractmethod
    def assemble(self, programs: Sequence[Program], reads: Sequence[tuple[int, ...]] | None = None) -> Program:
        """Programs wired into one.

        Args:
            programs: of ops, in the order of execution; the last one computes the output.
            reads: for each, the positions of its inputs, `FROM_IMAGE` for the image; None for a chain, in which each
                reads the previous one.
        """

    @abstractmethod
    def another(self, program: Program, number: int) -> Program:
        """A variant of the program of an op with other random weights; variant 0 is the program itself.

        With equal weights, an op that occurs twice on the same input would be computed once.
        """

    @abstractmethod
    def tied(self, program: Program) -> Program:
        """The program of an op for timing alone: with a single input, in the recipe's precision."""

    @abstractmethod
    def any_batch(self, program: Program) -> Program:
        """A program from `lower` with a symbolic batch axis: it takes any number of images in a run.

        Raises:
            GraphError: the network contains the number of images.
        """

    def float_layers(self, program: Program) -> list[str]:
        """Names of the layers that an int8 recipe keeps in float, because they cost too much accuracy."""
        return []

    @abstractmethod
    def write(self, program: Program, folder: Path) -> Path:
        """Write a program into a folder atomically; return the file's path.

        Raises:
            OutputError: the file cannot be written.
        """

    def spooled(self, program: Program, folder: Path) -> Program | Path:
        """The program as a file in a folder if it has its own weights; else the program itself.

        Raises:
            OutputError: the file cannot be written.
        """
        return program


def chained(count: int) -> list[tuple[int, ...]]:
    """The inputs of programs in a chain: each reads the previous one."""
    return [(i - 1,) for i in range(count)]
