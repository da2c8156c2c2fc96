"""PyTorch's eager execution on the CPU."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pydantic
import torch
from torch import nn

from hwnas.errors import BundleError
from hwnas.lowering import Program
from hwnas.lowering.torch import input_shape, runnable
from hwnas.runtimes.base import Array, Session, parse_options


class TorchOptions(pydantic.BaseModel, extra="forbid", frozen=True):
    """The ``[options]`` of a torch recipe: there are none."""


class TorchSession(Session):
    """A module of torch's own layers, run eagerly in inference mode."""

    @staticmethod
    def version() -> str:
        """Version of torch."""
        return str(torch.__version__)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Torch's thread count belongs to the process: the recipe's inside, what it was before outside."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _load(self, program: Program | Path) -> tuple[int, ...]:
        parse_options(self.recipe, TorchOptions)
        if isinstance(program, Path):
            try:
                zipfile.ZipFile(program).close()  # torch.export.load logs a traceback for a file that is no zip
                program = runnable(torch.export.load(program))
            except Exception as error:  # torch.export has no common base class for its load errors
                raise BundleError(f"torch {self.version()} cannot load {program.name}: {error}") from error
        assert isinstance(program, nn.Module)
        self._module: nn.Module = program
        return input_shape(program)

    def _run(self, x: Array) -> Array:
        with self.threads():
            y: torch.Tensor = self._bind(x)()
        return y.numpy()

    def _bind(self, x: Array) -> Callable[[], torch.Tensor]:
        module, tensor = self._module, torch.from_numpy(x)

        @torch.inference_mode()
        def call() -> torch.Tensor:
            y: torch.Tensor = module(tensor)
            return y

        return call

    def _close(self) -> None:
        del self._module
