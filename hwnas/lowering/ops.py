"""The form of a simulated machine's programs: the ops themselves, without an export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering.form import Form, InputType, OpsProgram, Program
from hwnas.spaces import Op
from hwnas.spaces.ops import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn


class OpsForm(Form):
    """Programs that are lists of ops."""

    def lower(
        self, network: nn.Module, shape: Shape, images: Tensor | None = None, *, dtype: InputType = "float32"
    ) -> Program:
        """Not supported: a simulated machine has no programs to deploy.

        Raises:
            RuntimeUnavailable: always.
        """
        raise RuntimeUnavailable("a simulated machine does not run networks, so there is nothing to export")

    def lower_ops(self, ops: Sequence[Op], *, wired: bool = False) -> dict[Op, Program]:
        """A program with the op itself for each op."""
        return {op: OpsProgram((op,)) for op in ops}

    def assemble(self, programs: Sequence[Program], reads: Sequence[tuple[int, ...]] | None = None) -> Program:
        """A program with the ops of all programs."""
        return OpsProgram(tuple(op for program in programs for op in _ops(program)))

    def another(self, program: Program, number: int) -> Program:
        """The program itself: there are no weights."""
        return program

    def tied(self, program: Program) -> Program:
        """The program itself."""
        return program

    def any_batch(self, program: Program) -> Program:
        """The program itself: the latency of an op is of the recipe's batch."""
        return program

    def write(self, program: Program, folder: Path) -> Path:
        """Not supported.

        Raises:
            RuntimeUnavailable: always.
        """
        raise RuntimeUnavailable("a simulated machine's programs have no file")


def _ops(program: Program) -> tuple[Op, ...]:
    assert isinstance(program, OpsProgram)
    return program.ops
