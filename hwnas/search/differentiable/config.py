"""Configuration of the training of a relaxed network."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from hwnas.files import Spec


class DifferentiableConfig(Spec):
    """Configuration of the training of a relaxed network.

    Attributes:
        steps: number of updates of the weights.
        batch_size: images per batch of each level.
        learning_rate: of the weights; cosine decay to 0.
        momentum, weight_decay: of the weights.
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
    learning_rate: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0, le=1)
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
