"""Configuration of the training of a relaxed network."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from hwnas.files import Spec
from hwnas.spaces import Space
from hwnas.supernet.config import OptimizerName, usual_training

_USUAL: dict[OptimizerName, tuple[float, float]] = {"sgd": (0.05, 3e-4), "adamw": (1e-3, 0.05)}  # rate, weight decay


def _usual_rate(given: dict[str, Any]) -> float:
    return _USUAL[given["optimizer"]][0]


def _usual_decay(given: dict[str, Any]) -> float:
    return _USUAL[given["optimizer"]][1]


def usual_search(space: Space) -> DifferentiableConfig:
    """The default config of a space: AdamW for networks with attention, SGD for others."""
    return DifferentiableConfig(optimizer=usual_training(space).optimizer)


class DifferentiableConfig(Spec):
    """Configuration of the training of a relaxed network.

    Attributes:
        steps: number of updates of the weights.
        batch_size: images per batch of each level.
        optimizer: of the weights, "sgd" or "adamw"; the default learning rate and weight decay depend on it.
        learning_rate: of the weights; cosine decay to 0.
        momentum: of SGD.
        weight_decay: of the weights.
        clip_norm: gradients of the weights are clipped to this norm.
        warmup: initial share of the steps, in which only the weights are trained.
        arch_learning_rate, arch_weight_decay: of the probabilities' logits, which Adam trains.
        penalty: on latency, a key of `hwnas.latency.penalties.PENALTIES`.
        update_every: steps between two updates of an adaptive penalty.
        entropy: weight of the probabilities' mean entropy in the loss; increases linearly from 0 to this value.
        skip_dropout: dropout on skip connections of cells; decreases linearly from this value to 0 (Chen et al.,
            "P-DARTS", ICCV 2019).
        skip_guard: stop before more than half of a cell's edges are skip connections, and never return such a network
            (DARTS+).
        window: the returned network is at most this share below its target if such a network exists; otherwise the
            share is doubled until one exists.
        checkpoint_every: steps between two checkpoints.
    """

    steps: PositiveInt = 1000
    batch_size: int = Field(default=64, gt=0, le=2**20)
    optimizer: OptimizerName = Field(default="sgd", exclude_if=lambda optimizer: optimizer == "sgd")
    learning_rate: float = Field(default_factory=_usual_rate, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default_factory=_usual_decay, ge=0, le=1)
    clip_norm: float = Field(default=5.0, gt=0)
    warmup: float = Field(default=0.2, ge=0, lt=1)
    arch_learning_rate: float = Field(default=0.02, gt=0)
    arch_weight_decay: float = Field(default=1e-3, ge=0, le=1)
    penalty: str = "lagrangian"
    update_every: PositiveInt = 10
    entropy: float = Field(default=0.0, ge=0)
    skip_dropout: float = Field(default=0.0, ge=0, lt=1)
    skip_guard: bool = False
    window: float = Field(default=0.05, gt=0, lt=1)
    checkpoint_every: PositiveInt = 100
