"""The optimizer of a training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.supernet.config import TrainConfig


def sgd(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig, momentum: Mapping[str, Tensor] | None = None
) -> torch.optim.SGD:
    """Create SGD with weight decay on the weights of convolutions and linear layers only (not on BN and biases).

    Args:
        parameters: by name.
        config: the training config.
        momentum: momentum buffers from a checkpoint, by parameter name.
    """
    groups = [
        {"params": [p for p in parameters.values() if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters.values() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    nesterov = config.momentum > 0  # torch rejects Nesterov momentum without momentum
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=nesterov)
    for name, buffer in (momentum or {}).items():
        parameter = parameters[name]
        optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
    return optimizer
