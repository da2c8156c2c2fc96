"""Checkpoints of a training: weights, moving average, momentum and the number of steps done.

All random choices are functions of the seed and the step, so no generator state is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
from pydantic import JsonValue
from torch import Tensor

from hwnas.errors import CheckpointError
from hwnas.files import write_whole

CHECKPOINT = "checkpoint.safetensors"
_PARTS = ("model", "average", "momentum", "best", "adapters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of a training.

    Attributes:
        step: number of updates done.
        model: state of the supernet.
        average: moving averages of its parameters, by name; empty if none are kept.
        momentum: tensors of the optimizer, by parameter name: momentum, or moments of gradients.
        adapters: state of the adapters, if there are any.
        best: state with the best validation, if the training keeps it.
        validated: values of each validation (`hwnas.training.validation.Validated`).
    """

    step: int
    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    best: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: Mapping[str, Tensor] = field(default_factory=dict)
    validated: Sequence[Sequence[float]] = ()


def write_checkpoint(path: Path, subject: Mapping[str, JsonValue], state: Checkpoint) -> None:
    """Write a checkpoint.

    Args:
        path: the file.
        subject: values that identify the training.
        state: the state to write.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor.contiguous() for part in _PARTS for name, tensor in getattr(state, part).items()
    }
    metadata = {"subject": json.dumps(subject), "step": str(state.step), "validated": json.dumps(state.validated)}
    write_whole(path, safetensors.torch.save(tensors, metadata))


def checkpoint_subject(path: Path) -> dict[str, JsonValue]:
    """Return the subject of a checkpoint's training; empty if the file is missing or cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})["subject"]))
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        return {}  # `read_checkpoint` reports it


def read_checkpoint(path: Path, subject: Mapping[str, JsonValue]) -> Checkpoint | None:
    """Read a checkpoint of a training; None if the file is missing.

    Raises:
        CheckpointError: the file is broken, or was written with other settings.
    """
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            theirs, step = dict(json.loads(metadata["subject"])), int(metadata["step"])
            validated = json.loads(metadata.get("validated", "[]"))  # missing in files of older versions
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}. Delete it to start anew.") from error
    if differing := [name for name in subject.keys() | theirs.keys() if subject.get(name) != theirs.get(name)]:
        told = ", ".join(_difference(name, theirs.get(name), subject.get(name)) for name in sorted(differing))
        raise CheckpointError(
            f"{path} was written with other settings: {told}. Choose another folder, or start anew with --no-resume"
        )
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return Checkpoint(step=step, validated=validated, **parts)


def _difference(name: str, there: JsonValue, now: JsonValue) -> str:
    """Describe how a setting differs; for long values (phases, hashes), give the name only."""
    texts = [json.dumps(value) for value in (there, now)]
    return f"{name} (there {texts[0]}, now {texts[1]})" if max(map(len, texts)) < 20 else f"another {name}"
