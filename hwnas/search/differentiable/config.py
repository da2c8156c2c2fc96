"""How a relaxed network is trained."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from hwnas.files import Spec


class DifferentiableConfig(Spec):
    """How a relaxed network is trained.

    Attributes:
        steps: updates of the weights.
        batch_size: images of each level's batch.
        learning_rate: of the weights, falling to 0 along a cosine.
        momentum, weight_decay, clip_norm: of the weights.
        warmup: share of the steps before probabilities are trained, too.
        arch_learning_rate, arch_weight_decay: of the probabilities' logits, by Adam.
        penalty: on latency, a key of `hwnas.latency.penalties.PENALTIES`.
        update_every: steps between two updates of a penalty that adapts.
        entropy: weight of the probabilities' mean entropy in the loss, rising from 0 to this at the end.
        skip_dropout: on skip connections of cells, falling from this to 0 (Chen et al., "P-DARTS", ICCV 2019).
        skip_guard: end before more than half of a cell's edges are skip connections, and return none that has (DARTS+).
        window: the network at the end lies at most this share below its target, where one does; else as near as any.
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
