"""Training in one process. Training in several processes uses Fabric, whose import takes 4 s of CPU time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor

from hwnas.errors import InvalidValue

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    Processes: TypeAlias = "Alone | Fabric"

_Moved = TypeVar("_Moved", Tensor, torch.nn.Module)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Alone:
    """Training in this process only. A `Fabric` has the same methods for several processes.

    Attributes:
        device: the device that torch computes on.
        precision: 32-true, or bf16-mixed: matrix products and convolutions in bfloat16, weights in single precision.
    """

    device: torch.device
    precision: str = "32-true"
    world_size: ClassVar[int] = 1
    global_rank: ClassVar[int] = 0
    is_global_zero: ClassVar[bool] = True

    def to_device(self, moved: _Moved) -> _Moved:
        """Return a tensor on the device; a module is moved in place."""
        return moved.to(self.device)

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which torch computes in this precision."""
        if self.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to the gradients of the weights."""
        loss.backward()

    def all_reduce(self, tensor: Tensor, *, reduce_op: str) -> Tensor:
        """Return the tensor unchanged: it is the mean and the sum over one process."""
        return tensor

    def broadcast(self, value: _Value) -> _Value:
        """Return the value unchanged."""
        return value

    def barrier(self) -> None:
        """Return immediately: there is no other process to wait for."""


def alone_on(accelerator: str, precision: str) -> Alone:
    """Choose the CPU or the first GPU for a training in one process.

    Args:
        accelerator: auto (a GPU if there is one), cpu or cuda.
        precision: 32-true or bf16-mixed.

    Raises:
        InvalidValue: the device is not available.
    """
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InvalidValue(
            "cannot train on 1 devices of cuda: torch finds no CUDA device (torch.cuda.is_available() is False)"
        )
    if accelerator == "cuda" or (accelerator == "auto" and torch.cuda.is_available()):
        return Alone(torch.device("cuda", 0), precision)
    if accelerator == "auto" and torch.backends.mps.is_available():
        return Alone(torch.device("mps", 0), precision)
    return Alone(torch.device("cpu"), precision)


def precision_of(processes: Processes) -> str:
    """Return the precision of a training."""
    if isinstance(processes, Alone):
        return processes.precision
    return str(processes.strategy.precision.precision)
