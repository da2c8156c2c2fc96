"""Members of an ensemble of networks, trained at the same time.

The weights of all members are one tensor with a first axis for the members, as in `hwnas.accuracy.ensemble`: most of a
small fit is the overhead of its operations. Members differ in their initial weights and in the weights of the samples
(the Bayesian bootstrap; Rubin, 1981).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from hwnas.accuracy.predictors.base import Floats
from hwnas.spaces import Codes

MEMBERS = 5  # as in BANANAS
_STEPS = 300
_BATCH = 64  # networks of a step
_RATE, _DECAY = 1e-2, 0.1

Weights: TypeAlias = dict[str, Tensor]
Inputs: TypeAlias = tuple[Tensor, ...]
"""Tensors whose first axis is the network."""
Outputs: TypeAlias = Callable[[Weights, Inputs], Tensor]
"""Weights and inputs -> outputs of the members, ``(members, n)``."""


def initial(inputs: Mapping[str, int], hidden: int, generator: torch.Generator) -> Weights:
    """Initial weights ``(members, in, out)`` and biases ``(members, 1, out)`` of layers.

    Args:
        inputs: name of a layer -> number of its inputs; the layer called ``last`` has one output.
        hidden: outputs of the others.
        generator: of the weights.
    """
    found: Weights = {}
    for name, fan_in in inputs.items():
        width = 1 if name == "last" else hidden
        for part, rows in (("weight", fan_in), ("bias", 1)):
            drawn = torch.rand((MEMBERS, rows, width), generator=generator)
            found[f"{name}.{part}"] = ((2 * drawn - 1) / math.sqrt(max(fan_in, 1))).requires_grad_()
    return found


def layer(weights: Weights, name: str, x: Tensor) -> Tensor:
    """A linear layer of every member: ``(n, in)`` or ``(members, n, in)`` -> ``(members, n, out)``."""
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def train(outputs: Outputs, weights: Weights, inputs: Inputs, values: Floats, generator: torch.Generator) -> None:
    """Minimise the weighted squared errors of every member.

    Args:
        outputs: the network.
        weights: modified in place.
        inputs: of the networks.
        values: ``(n,)``, with mean 0 and standard deviation 1.
        generator: of the sample weights and batches.
    """
    n, y = len(values), torch.tensor(values, dtype=torch.float32)
    importance = -torch.rand((MEMBERS, n), generator=generator).clamp_min(1e-9).log()
    optimizer = torch.optim.AdamW(list(weights.values()), lr=_RATE, weight_decay=_DECAY, fused=True)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / _STEPS)
        rows = torch.randperm(n, generator=generator)[:_BATCH] if n > _BATCH else slice(None)
        errors = outputs(weights, tuple(each[rows] for each in inputs)) - y[rows]
        optimizer.zero_grad()
        (importance[:, rows] * errors**2).mean(dim=1).sum().backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 5.0)
        optimizer.step()
    for tensor in weights.values():
        tensor.requires_grad_(False)


@dataclass(frozen=True, slots=True)
class Members:
    """A fitted ensemble.

    Attributes:
        inputs: codes ``(n, variables)`` -> inputs of the network.
        outputs: the network.
        weights: of all members.
    """

    inputs: Callable[[Codes], Inputs]
    outputs: Outputs
    weights: Weights

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Codes ``(n, variables)`` -> mean of the members and their standard deviation, ``(n,)`` each."""
        with torch.inference_mode():
            found = self.outputs(self.weights, self.inputs(codes)).numpy().astype(np.float64)
        return found.mean(axis=0), found.std(axis=0)
