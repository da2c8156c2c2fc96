"""Sessions of the runtimes that the runner drives without hwnas, too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar, Self, cast

import onnx
import pydantic

from hwnas.errors import BundleError
from hwnas.lowering import Program
from hwnas.lowering.serialized import serialized
from hwnas.runner.program import CannotLoad, RunnerProgram, Source
from hwnas.runtimes.base import Array, Call, Session, parse_options
from hwnas.targets.runtimes import Precision


class DrivenSession(Session):
    """An ONNX graph in a `hwnas.runner.program.RunnerProgram`.

    Attributes:
        program: drives the runtime.
        known_options: the recipe's ``[options]``.
    """

    program: ClassVar[type[RunnerProgram]]
    known_options: ClassVar[type[pydantic.BaseModel]]

    @classmethod
    def missing(cls, precision: Precision = "fp32") -> list[str]:
        """As the runner's program says."""
        return cls.program.missing(precision)

    @classmethod
    def version(cls) -> str:
        """Version of the runtime's library."""
        return cls.program.version()

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        options = parse_options(self.recipe, self.known_options)
        source = source_of(program)
        try:
            self._driven: RunnerProgram = self.program(
                source,
                threads=self.recipe.threads,
                precision=self.recipe.precision,
                options=options.model_dump(mode="json"),
                batch=None if self.any_batch else self.recipe.batch,
            )
        except CannotLoad as error:
            raise BundleError(str(error)) from error
        self.dtype = self._driven.dtype
        return (self.recipe.batch, *self._driven.shape[1:]) if self.any_batch else self._driven.shape

    def _run(self, x: Array) -> Array:
        return cast("Array", self._driven.run(x))

    def _bind(self, x: Array) -> Call:
        return self._driven.bind(x)

    def _again(self) -> Self:
        other = copy.copy(self)
        other._driven = cast("RunnerProgram", self._driven.again())
        return other

    def _close(self) -> None:
        self._driven.close()


def source_of(program: Program | Path) -> Source:
    """A graph's file name, or its bytes.

    Raises:
        GraphError: it exceeds protobuf's limit.
    """
    if isinstance(program, Path):
        return str(program)
    assert isinstance(program, onnx.ModelProto)
    return serialized(program)
