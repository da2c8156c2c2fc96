"""The optimizer of a training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.supernet.config import TrainConfig

_MOMENTUM = "momentum_buffer"  # of SGD: stored under the parameter's name alone, as in checkpoints of older versions
_BETAS = 0.9, 0.999
_EMBEDDINGS = ("tokens.weight", "positions.weight", "first.weight")


def optimizer_of(
    parameters: Mapping[str, nn.Parameter], config: TrainConfig, state: Mapping[str, Tensor] | None = None
) -> torch.optim.Optimizer:
    """Create the optimizer: SGD with momentum, or AdamW.

    Weight decay is applied to the weights of convolutions and linear layers only, not to normalisations,
    biases and embeddings.

    Args:
        parameters: by name.
        config: the training config.
        state: of a checkpoint, from `state_of`.
    """
    decayed = {name for name, p in parameters.items() if p.dim() > 1 and not name.endswith(_EMBEDDINGS)}
    if config.optimizer == "adamw":  # its decay is 1,000 times that of SGD, towards kernels of zeros
        decayed = {name for name in decayed if ".transforms." not in name}
    groups = [
        {"params": [p for name, p in parameters.items() if name in decayed], "weight_decay": config.weight_decay},
        {"params": [p for name, p in parameters.items() if name not in decayed], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=_BETAS)
    else:
        nesterov = config.momentum > 0  # torch rejects Nesterov momentum without momentum
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=nesterov)
    for key, tensor in (state or {}).items():
        name, _, what = key.partition("/")
        parameter = parameters[name]
        if what == "step":  # torch keeps it on the CPU
            optimizer.state[parameter][what] = tensor.clone()
        else:
            optimizer.state[parameter][what or _MOMENTUM] = torch.empty_like(parameter).copy_(tensor)
    return optimizer


def state_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The tensors of an optimizer: name of a parameter, and what it is of it -> tensor.

    Args:
        optimizer: from `optimizer_of`.
        parameters: by name.
    """
    return {
        name if what == _MOMENTUM else f"{name}/{what}": tensor
        for name, parameter in parameters.items()
        for what, tensor in optimizer.state[parameter].items()
        if isinstance(tensor, Tensor)
    }
