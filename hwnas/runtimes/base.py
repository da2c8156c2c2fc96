"""The session interface of all runtimes: this class checks state and arguments, subclasses do the work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pydantic

from hwnas.errors import RuntimeInputError, SpecError
from hwnas.lowering import Program
from hwnas.runner.program import Timed
from hwnas.targets import Recipe
from hwnas.targets.runtimes import Precision

Array = npt.NDArray[np.float32]
Call = Callable[[], object]
Options = TypeVar("Options", bound=pydantic.BaseModel)


class Session(Timed):
    """A program compiled by a runtime, ready to run.

    Attributes:
        recipe: recipe that it was compiled for.
        any_batch: whether a run takes any number of images, not only the recipe's batch, which `shape` has.
        takes_uint8: whether the runtime's sessions run programs that include the normalisation.
        takes_any_batch: whether the runtime's sessions run programs with a symbolic batch axis: with the batch fixed to
            the recipe's, as the program was profiled, or with `any_batch`.
    """

    recipe: Recipe
    any_batch: bool = False
    takes_uint8: ClassVar[bool] = False
    takes_any_batch: ClassVar[bool] = False

    def __init__(self, program: Program | Path, recipe: Recipe, *, any_batch: bool = False) -> None:
        self.recipe, self.any_batch = recipe, any_batch
        self._program = program
        self._open = True
        self.shape = self._load(program)

    @classmethod
    def missing(cls, precision: Precision = "fp32") -> list[str]:
        """Why the runtime cannot compute in this precision on this host, with remedies; checked before any work."""
        return []

    @staticmethod
    @abstractmethod
    def version() -> str:
        """Version of the runtime's library."""

    def facts(self) -> dict[str, str]:
        """Further dependencies of the compiled program besides the recipe and the runtime's version, for a manifest."""
        return {}

    def run(self, x: Array) -> Array:
        """Images ``self.shape``, or any number of them with `any_batch` -> outputs, ``(batch, ...)``.

        Raises:
            RuntimeInputError: the shape or dtype is wrong, or the session is closed.
        """
        return self._run(self._checked(x))

    def bind(self, x: Array) -> Call:
        """A call that runs the program on `x` without copies and with a preallocated output.

        On a GPU it returns after enqueuing the run; `time_ms` waits for it.

        Raises:
            RuntimeInputError: the shape or dtype is wrong, or the session is closed.
        """
        return self._bind(self._checked(x))

    def again(self) -> Self:
        """The same program in a new session, elsewhere in memory; it is not recompiled if compiling is slow.

        Raises:
            RuntimeInputError: this session is closed.
        """
        self._require_open()
        return self._again()

    def write_compiled(self, folder: Path) -> None:
        """Write the compiled program, if the runtime can load it without compiling again.

        Args:
            folder: folder of the program.

        Raises:
            RuntimeInputError: this session is closed.
            OutputError: a file cannot be written.
        """
        self._require_open()

    def close(self) -> None:
        """Free the program. Running a closed session is an error; closing twice is harmless."""
        if self._open:
            self._open = False
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if not self._open:
            raise RuntimeInputError(f"this {self.recipe.runtime} session is closed; open it again to run it")

    def _checked(self, x: Array) -> Array:
        self._require_open()
        fits = x.shape[1:] == self.shape[1:] and len(x) > 0 if self.any_batch else x.shape == self.shape
        if not fits or x.dtype != self.dtype:
            shape = f"(any number, {', '.join(map(str, self.shape[1:]))})" if self.any_batch else self.shape
            raise RuntimeInputError(f"the program takes {self.dtype} {shape}, not {x.dtype} {x.shape}")
        # Runtimes access the memory directly, so views with negative strides or without write access are copied once.
        return np.require(x, requirements=["C", "W"])

    @abstractmethod
    def _load(self, program: Program | Path) -> tuple[int, ...]:
        """Compile the program; return the shape of its input."""

    @abstractmethod
    def _run(self, x: Array) -> Array: ...

    @abstractmethod
    def _bind(self, x: Array) -> Call: ...

    def _again(self) -> Self:
        if self.any_batch:
            return type(self)(self._program, self.recipe, any_batch=True)
        return type(self)(self._program, self.recipe)

    @abstractmethod
    def _close(self) -> None: ...


def parse_options(recipe: Recipe, model: type[Options]) -> Options:
    """A recipe's ``[options]`` as typed options of the runtime.

    Raises:
        SpecError: an option is unknown to the runtime, or its value is invalid.
    """
    try:
        return model.model_validate(dict(recipe.options))
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}" for e in error.errors())
        raise SpecError(
            f"recipe {recipe.name}: [options] of {recipe.runtime}: {problems}. "
            f"Known options: {', '.join(model.model_fields) or 'none'}."
        ) from error
