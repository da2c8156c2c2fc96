"""The reference evaluator of the onnx package: the definition of each operator, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pydantic
from onnx.reference import ReferenceEvaluator

from hwnas.errors import BundleError
from hwnas.lowering import Program
from hwnas.runtimes.base import Array, Session, parse_options


class ReferenceOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of its recipes: there are none."""


class ReferenceSession(Session):
    """An ONNX graph in the reference evaluator."""

    @staticmethod
    def version() -> str:
        """Version of onnx."""
        return str(onnx.__version__)

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        parse_options(self.recipe, ReferenceOptions)
        try:
            model = onnx.load(program) if isinstance(program, Path) else program
            self._evaluator = ReferenceEvaluator(model)
            [self._input] = model.graph.input
        except Exception as error:  # whatever is wrong with the file, the user reads which file
            name = program.name if isinstance(program, Path) else "the graph"
            raise BundleError(f"onnx {self.version()} cannot load {name}: {error}") from error
        return tuple(d.dim_value for d in self._input.type.tensor_type.shape.dim)

    def _run(self, x: Array) -> Array:
        [y] = self._evaluator.run(None, {self._input.name: x})
        return np.asarray(y, np.float32)

    def _bind(self, x: Array) -> Callable[[], object]:
        return lambda: self._run(x)  # the evaluator allocates as it goes: there are no arrays to bind

    def _close(self) -> None:
        del self._evaluator
