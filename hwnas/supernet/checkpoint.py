"""Checkpoints of a training: weights, moving average and momentum, and the step they belong to.

All that is random follows from the seed and the step, so there is no generator to be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from hwnas.errors import CheckpointError
from hwnas.targets import write_whole

CHECKPOINT = "checkpoint.safetensors"
_PARTS = ("model", "average", "momentum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a training was.

    Attributes:
        step: updates behind it.
        model: state of the supernet.
        average: moving averages of its parameters, by name; empty if none are kept.
        momentum: the optimizer's, by the parameter's name.
    """

    step: int
    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]


def write_checkpoint(path: Path, subject: str, state: Checkpoint) -> None:
    """Write a checkpoint.

    Args:
        path: the file.
        subject: tells one training from another.
        state: what is written.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor.contiguous() for part in _PARTS for name, tensor in getattr(state, part).items()
    }
    write_whole(path, safetensors.torch.save(tensors, {"subject": subject, "step": str(state.step)}))


def read_checkpoint(path: Path, subject: str) -> Checkpoint | None:
    """A checkpoint of that training; None if there is none.

    Raises:
        CheckpointError: the file is broken, or belongs to another training.
    """
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}. Delete it to start anew.") from error
    if metadata.get("subject") != subject:
        raise CheckpointError(
            f"{path} belongs to a training with another space, other data or other settings; "
            "choose another folder, or delete it to start anew"
        )
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return Checkpoint(step=int(metadata["step"]), **parts)
