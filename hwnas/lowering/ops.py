"""The form of a simulated machine's programs: the ops themselves, nothing exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import RuntimeUnavailable
from hwnas.lowering.form import Form, OpsProgram, Program
from hwnas.spaces import Op
from hwnas.spaces.ops import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn


class OpsForm(Form):
    """Programs that are lists of ops."""

    def lower(self, network: nn.Module, shape: Shape, images: Tensor | None = None) -> Program:
        """Nothing that could be deployed.

        Raises:
            RuntimeUnavailable: always.
        """
        raise RuntimeUnavailable("a simulated machine runs no network, so nothing can be exported for it")

    def lower_ops(self, ops: Sequence[Op], *, wired: bool = False) -> dict[Op, Program]:
        """Each op as itself."""
        return {op: OpsProgram((op,)) for op in ops}

    def assemble(self, programs: Sequence[Program], reads: Sequence[tuple[int, ...]] | None = None) -> Program:
        """All their ops."""
        return OpsProgram(tuple(op for program in programs for op in _ops(program)))

    def another(self, program: Program, number: int) -> Program:
        """The same: there are no weights."""
        return program

    def tied(self, program: Program) -> Program:
        """The same."""
        return program

    def write(self, program: Program, folder: Path) -> Path:
        """Nothing.

        Raises:
            RuntimeUnavailable: always.
        """
        raise RuntimeUnavailable("a simulated machine's programs have no file")


def _ops(program: Program) -> tuple[Op, ...]:
    assert isinstance(program, OpsProgram)
    return program.ops
