"""PyTorch on the CPU: eager or torch.compile."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pydantic
import torch
from torch import nn

from hwnas.errors import BundleError, OutputError, RuntimeUnavailable
from hwnas.files import system_refusals
from hwnas.lowering import Program
from hwnas.lowering.torch import input_dtype, input_shape, takes_any_batch, without_checks
from hwnas.lowering.torch_archive import load_archive
from hwnas.runtimes.base import Array, Session, parse_options


class TorchOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of a torch recipe.

    Attributes:
        compile: run it through ``torch.compile`` (Inductor, weights frozen and packed).
    """

    compile: bool = False


def loaded(program: Program | Path, batch: int) -> nn.Module:
    """The module of a program or of its file, for runs of this number of images.

    Raises:
        BundleError: the file is not a program.
    """
    if isinstance(program, Path):
        program = without_checks(load_archive(program, batch))
    assert isinstance(program, nn.Module)
    return program


def copied(module: nn.Module) -> nn.Module:
    """A copy of the module with its own weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from torch, about copying exported graphs
        return copy.deepcopy(module)


class TorchSession(Session):
    """A module of torch layers in inference mode."""

    takes_uint8 = True
    takes_any_batch = True

    @staticmethod
    def version() -> str:
        """Version of torch."""
        return str(torch.__version__)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Set torch's process-wide thread count to the recipe's, and restore it at the end."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        options = parse_options(self.recipe, TorchOptions)
        self._module = loaded(program, self.recipe.batch)
        shape = input_shape(self._module, self.recipe.batch)
        if self.any_batch and not takes_any_batch(self._module):
            raise BundleError("the program takes a fixed number of images in a run: export it again")
        self.dtype = np.dtype(str(input_dtype(self._module)).removeprefix("torch."))
        self._call = self._compiled(shape) if options.compile else self._module
        return shape

    def _compiled(self, shape: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
        """The module compiled for one shape, or for any number of images; it is compiled in the first run."""
        from torch._inductor.exc import InductorError

        # All programs share one function: without a reset, a new program would count as a recompilation.
        torch._dynamo.reset()
        call: Callable[[torch.Tensor], torch.Tensor] = torch.compile(
            self._module, fullgraph=True, dynamic=self.any_batch, options={"freezing": True}
        )
        try:
            with system_refusals("torch.compile"), self.threads(), torch.inference_mode():
                call(torch.zeros(shape, dtype=input_dtype(self._module)))
        except OutputError as error:
            raise RuntimeUnavailable(f"{error}. Use a recipe without torch.compile, e.g. torch-cpu-fp32") from error
        except InductorError as error:
            raise RuntimeUnavailable(
                f"torch.compile fails: {str(error).splitlines()[0]}. It needs a C++ compiler (g++ or clang++); install "
                "one, or use a recipe without torch.compile, e.g. torch-cpu-fp32"
            ) from error
        return call

    def _again(self) -> Self:
        """A copy of the weights; compiled code, which contains them, is shared, because compiling takes seconds."""
        other = copy.copy(self)
        if self._call is self._module:
            other._call = other._module = copied(self._module)
        return other

    def _run(self, x: Array) -> Array:
        with self.threads():
            y: torch.Tensor = self._bind(x)()
        return y.numpy()

    def _bind(self, x: Array) -> Callable[[], torch.Tensor]:
        module, tensor = self._call, torch.from_numpy(x)

        @torch.inference_mode()
        def call() -> torch.Tensor:
            return module(tensor)

        return call

    def _close(self) -> None:
        del self._module, self._call
