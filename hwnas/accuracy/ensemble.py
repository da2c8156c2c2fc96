"""An ensemble of small MLPs that predicts scores with an uncertainty.

Members have different initial weights and different sample weights of the evaluated networks, as in the Bayesian
bootstrap; their disagreement estimates the uncertainty (Lakshminarayanan et al., "Simple and Scalable Predictive
Uncertainty Estimation using Deep Ensembles", NeurIPS 2017; Rubin, "The Bayesian Bootstrap", 1981).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.accuracy.stagewise import Term, single
from hwnas.spaces import Codes, Space
from hwnas.spaces.slotsum import Lookup

Floats = npt.NDArray[np.float64]

_MEMBERS = 8
_HIDDEN = 48
_STEPS = 400
_RATE = 1e-2
_DECAY = 0.1
_ROWS = 1000  # networks scored at a time: their activations stay in the cache


@dataclass(frozen=True)
class Ensemble:
    """A fitted ensemble.

    Attributes:
        space: space of the codes.
        layers: weights ``(members, in, out)`` and biases ``(members, 1, out)`` of each layer, alternating.
        inputs: mean and standard deviation of the features, ``(2, features)``.
        outputs: mean and standard deviation of the scores.
    """

    space: Space
    layers: tuple[Tensor, ...]
    inputs: Floats
    outputs: tuple[float, float]

    def __call__(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> scores by each member, ``(members, n)``."""
        mean, scale = self.outputs
        lookup, table = self._first
        members, _, width = self.layers[0].shape
        found = np.empty((members, len(codes)))
        with torch.inference_mode():
            for start in range(0, len(codes), _ROWS):
                rows = slice(start, start + _ROWS)
                places = torch.from_numpy(lookup.places(codes[rows]))
                first = functional.embedding_bag(places, table, mode="sum").view(-1, members, width).transpose(0, 1)
                found[:, rows] = _rest(self.layers[2:], first).numpy()
        return mean + scale * found

    @cached_property
    def _first(self) -> tuple[Lookup, Tensor]:
        """Outputs of the first layers of all members, as a sum of lookups.

        A feature depends on one or two variables, so its contribution to the layers is tabulated for their values.
        """
        weights, bias = (layer.double().numpy() for layer in self.layers[:2])
        summed: list[tuple[tuple[int, ...], Floats]] = [((), bias.reshape(-1))]
        begin = 0
        for term in single(self.space):
            own = slice(begin, begin + term.basis.shape[-1])
            basis = (term.basis - self.inputs[0, own]) / self.inputs[1, own]
            summed.append(
                (term.axes, np.einsum("...f,mfh->...mh", basis, weights[:, own]).reshape(*basis.shape[:-1], -1))
            )
            begin = own.stop
        lookup = Lookup.of(summed, dtype=np.float32)
        return lookup, torch.from_numpy(lookup.table)


def fit_ensemble(space: Space, codes: Codes, scores: Floats, *, seed: int) -> Ensemble:
    """An ensemble fitted to the scores ``(n,)`` of networks ``(n, variables)``."""
    terms = single(space)
    given = np.concatenate([term(codes) for term in terms], axis=1)
    inputs = np.stack([given.mean(axis=0), given.std(axis=0) + 1e-6])
    outputs = float(scores.mean()), float(scores.std()) or 1.0
    x = _inputs(terms, codes, inputs)
    y = torch.tensor((scores - outputs[0]) / outputs[1], dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    importance = -torch.rand((_MEMBERS, len(codes)), generator=generator).clamp_min(1e-9).log()
    layers = tuple(
        ((2 * torch.rand((_MEMBERS, rows, fan_out), generator=generator) - 1) / math.sqrt(fan_in)).requires_grad_()
        for fan_in, fan_out in ((x.shape[1], _HIDDEN), (_HIDDEN, _HIDDEN), (_HIDDEN, 1))
        for rows in (fan_in, 1)  # weights and biases
    )
    optimizer = torch.optim.AdamW(layers, lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, total_iters=_STEPS)
    for _ in range(_STEPS):
        # Summed over members: their gradients are independent.
        loss = (importance * (_forward(layers, x) - y) ** 2).mean(dim=1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Ensemble(space, tuple(layer.detach() for layer in layers), inputs, outputs)


def _inputs(terms: list[Term], codes: Codes, inputs: Floats) -> Tensor:
    given = np.concatenate([term(codes) for term in terms], axis=1)
    return torch.tensor((given - inputs[0]) / inputs[1], dtype=torch.float32)


def _forward(layers: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """Inputs ``(n, features)`` -> outputs of every member, ``(members, n)``."""
    return _rest(layers[2:], x @ layers[0] + layers[1])


def _rest(layers: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """Outputs of the first layers, ``(members, n, hidden)`` -> outputs of every member, ``(members, n)``."""
    for i in range(0, len(layers), 2):
        x = torch.baddbmm(layers[i + 1], functional.silu(x), layers[i])
    return x[..., 0]
