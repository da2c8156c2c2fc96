"""Training a supernet: the sandwich rule with in-place distillation.

Yu et al., "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models", ECCV 2020 (section 3.2):
each step trains the largest subnet on the labels, and the smallest and a few random ones on the largest's outputs;
their gradients add up to one update. Each subnet sees the images at its own resolution.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from hwnas.data import Data
from hwnas.errors import CheckpointError
from hwnas.nn import channels_last
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Domain
from hwnas.supernet.network import Supernet
from hwnas.targets import Spec, write_whole

CHECKPOINT = "checkpoint.safetensors"


class TrainConfig(Spec):
    """How a supernet is trained.

    Attributes:
        steps: updates.
        batch_size: images an update.
        learning_rate: peak, after a linear warm-up and before a cosine decay to 0.
        weight_decay: of convolution and linear weights.
        momentum: of Nesterov's SGD.
        label_smoothing: for the largest subnet.
        label_share: of the labels in the loss of the other subnets; the rest is the largest's outputs. BigNAS has 0;
            in a short training the largest knows little at first, and a share helps the others.
        random_subnets: random subnets in each update, beside the largest and the smallest.
        checkpoint_every: updates between two checkpoints.
    """

    steps: PositiveInt = 1100
    batch_size: PositiveInt = 64
    learning_rate: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=3e-5, ge=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    label_share: float = Field(default=0.5, ge=0, le=1)
    random_subnets: int = Field(default=1, ge=0)
    checkpoint_every: PositiveInt = 50


def train(
    supernet: Supernet,
    data: Data,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    progress: Progress = silent,
) -> None:
    """Train a supernet in place, or go on where a killed run of the same training left off.

    The result does not depend on whether it was interrupted: images, subnets and learning rate are functions of
    the step alone.

    Args:
        supernet: with its initial weights; a checkpoint in `folder` replaces them.
        data: images of as many channels and classes as the space has.
        config: how.
        seed: of the images and the random subnets.
        folder: for the checkpoint.
        progress: told after each step.

    Raises:
        CheckpointError: the folder holds a checkpoint of another training.
        OutputError: the checkpoint cannot be written.
    """
    space = supernet.space
    path = folder / CHECKPOINT
    subject = _subject(supernet, data, config, seed)
    largest, smallest = space.largest, space.smallest
    channels_last(supernet.train())
    optimizer = _optimizer(supernet, config)
    start = _resume(path, supernet, optimizer, subject)
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, config)
        images, labels = data.train_batch(step, config.batch_size, largest["resolution"], seed=seed)
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad(set_to_none=True)
        logits = supernet(images, largest)
        functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing).backward()
        targets = logits.detach().softmax(dim=1)
        random = space.decode(space.sample(config.random_subnets, seed=(seed, step)))
        for arch in (smallest, *random):
            outputs = supernet(_resized(images, arch), arch)
            taught = functional.cross_entropy(outputs, targets)
            told = functional.cross_entropy(outputs, labels)
            ((1 - config.label_share) * taught + config.label_share * told).backward()
        nn.utils.clip_grad_norm_(supernet.parameters(), 5.0)
        optimizer.step()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            _save(path, supernet, optimizer, subject, step + 1)
        progress("training the supernet", step + 1, config.steps)
    supernet.eval()


def _resized(images: Tensor, arch: Arch) -> Tensor:
    side = arch["resolution"]
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)


def _learning_rate(step: int, config: TrainConfig) -> float:
    warmup = max(1, config.steps // 20)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, config.steps - warmup)))


def _optimizer(supernet: Supernet, config: TrainConfig) -> torch.optim.SGD:
    """SGD with weight decay on the weights of convolutions and linear layers only (not on BN and biases)."""
    decayed = [p for p in supernet.parameters() if p.dim() > 1]
    others = [p for p in supernet.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    nesterov = config.momentum > 0  # torch refuses Nesterov's rule without momentum
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=nesterov)


def _subject(supernet: Supernet, data: Data, config: TrainConfig, seed: int) -> str:
    """Tells one training from another."""
    facts = {
        "domain": Domain.of(supernet.space).model_dump(),
        "data": data.fingerprint(),
        "config": config.model_dump(exclude={"checkpoint_every"}),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _save(path: Path, supernet: Supernet, optimizer: torch.optim.SGD, subject: str, step: int) -> None:
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in supernet.state_dict().items()}
    for i, parameter in enumerate(_parameters(optimizer)):
        buffer = optimizer.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{i}"] = buffer.contiguous()
    write_whole(path, safetensors.torch.save(tensors, {"subject": subject, "step": str(step)}))


def _resume(path: Path, supernet: Supernet, optimizer: torch.optim.SGD, subject: str) -> int:
    """Load a checkpoint, if there is one; returns the number of steps behind it."""
    if not path.is_file():
        return 0
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
    model = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    supernet.load_state_dict(model)
    for i, parameter in enumerate(_parameters(optimizer)):
        if f"momentum.{i}" in tensors:
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{i}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return int(metadata["step"])


def _parameters(optimizer: torch.optim.SGD) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
