"""Latency as a term of a loss: the exact expectation over a distribution of networks, and penalties on it.

Under independent distributions of a space's variables, the expectation of a sum over slots is the sum of expectations,
and that of a slot is its array contracted with the product of its variables' probabilities: nothing is sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue
from hwnas.latency.expectation import Expectation, Probabilities
from hwnas.latency.model import LatencyModel


class LatencyLoss(nn.Module):
    """Expected latencies of a space's networks, on one target or several, for any training loop of PyTorch.

    Args:
        models: latency models of the same space.

    Raises:
        InvalidValue: no model, or models of different spaces.
    """

    def __init__(self, *models: LatencyModel) -> None:
        super().__init__()
        if not models:
            raise InvalidValue("a latency loss needs at least one latency model")
        names = [model.space.name for model in models]
        if any(model.space.choices != models[0].space.choices for model in models) or len(set(names)) > 1:
            raise InvalidValue(f"the latency models of a loss must belong to one space, not to {', '.join(names)}")
        self.targets = tuple(model.target for model in models)
        self.expectations = nn.ModuleList(Expectation(model.space, model.total) for model in models)

    def forward(self, probabilities: Probabilities) -> Tensor:
        """Expected latencies in milliseconds.

        Args:
            probabilities: name of a variable -> probabilities of its values, ``(choices,)`` or ``(batch, choices)``.
                Variables with a single value may be omitted.

        Returns:
            ``(targets,)`` or ``(batch, targets)``, in the order of `targets`; at least in single precision, also under
            autocast, because half precision cannot resolve the differences between latencies.

        Raises:
            UnknownName: the space has no such variable.
            InvalidValue: a variable is missing; probabilities have another shape, do not sum to 1, are negative, NaN.
        """
        return torch.stack([expectation(probabilities) for expectation in self.expectations], dim=-1)
