"""What identifies a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.spaces import Domain
from hwnas.supernet.network import Supernet, weights_hash
from hwnas.training.alone import precision_of

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import nn

    from hwnas.supernet.config import TrainConfig
    from hwnas.training.alone import Processes


def subject_of(
    supernet: Supernet, data: str, config: TrainConfig, seed: int, fabric: Processes, teacher: nn.Module | None
) -> dict[str, JsonValue]:
    """Return values that identify a training."""
    return {
        "space": Domain.of(supernet.space).model_dump(),
        "data": data,
        **config.model_dump(mode="json", exclude={"checkpoint_every"}),
        "seed": seed,
        "precision": precision_of(fabric),
        "initial weights": weights_hash(supernet.state_dict()),
        # Only the parameters: re-calibrated BN statistics differ by rounding.
        "teacher": teacher and weights_hash(dict(teacher.named_parameters())),
    }
