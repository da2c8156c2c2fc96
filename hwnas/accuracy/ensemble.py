"""An ensemble of small MLPs that predicts scores with an uncertainty.

Members have different initial weights and different sample weights of the evaluated networks, as in the Bayesian
bootstrap; their disagreement estimates the uncertainty (Lakshminarayanan et al., "Simple and Scalable Predictive
Uncertainty Estimation using Deep Ensembles", NeurIPS 2017; Rubin, "The Bayesian Bootstrap", 1981).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.accuracy.stagewise import single
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

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Codes ``(n, variables)`` -> mean of the members and their standard deviation, ``(n,)`` each."""
        members = self(codes)
        return members.mean(axis=0), members.std(axis=0)

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


def fit_ensembles(space: Space, samples: Sequence[tuple[Codes, Floats]], seed: int) -> list[Ensemble]:
    """An ensemble for each sample of networks ``(n, variables)`` and scores ``(n,)``, fitted at the same time.

    Most of a small fit is the overhead of its operations: on one core, six fits on 16 to 20 networks take 1.3 s at once
    and 4.9 s one after the other.
    """
    terms = single(space)
    longest = max(len(codes) for codes, _ in samples)
    x, y, weights, layers, scales = [], [], [], [], []
    for codes, scores in samples:
        features = np.concatenate([term(codes) for term in terms], axis=1)
        # A feature that is equal in all networks of the fit keeps its scale: divided by almost 0, another value of it
        # moved predictions by thousands of standard deviations.
        deviation = features.std(axis=0)
        inputs = np.stack([features.mean(axis=0), np.where(deviation > 1e-6, deviation, 1.0)])
        outputs = float(scores.mean()), float(scores.std()) or 1.0
        scales.append((inputs, outputs))
        own = torch.tensor((features - inputs[0]) / inputs[1], dtype=torch.float32)
        scaled = torch.tensor((scores - outputs[0]) / outputs[1], dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        importance = -torch.rand((_MEMBERS, len(codes)), generator=generator).clamp_min(1e-9).log()
        layers.append(_initial(own.shape[1], generator))
        padding = longest - len(codes)  # rows without a weight
        x.append(functional.pad(own, (0, 0, 0, padding)).expand(_MEMBERS, -1, -1))
        y.append(functional.pad(scaled, (0, padding)).expand(_MEMBERS, -1))
        weights.append(functional.pad(importance / len(codes), (0, padding)))
    trained = tuple(torch.cat(same).requires_grad_() for same in zip(*layers, strict=True))
    _train(trained, torch.cat(x), torch.cat(y), torch.cat(weights))
    parts = [layer.detach().split(_MEMBERS) for layer in trained]
    return [Ensemble(space, own, *scale) for own, scale in zip(zip(*parts, strict=True), scales, strict=True)]


def _initial(features: int, generator: torch.Generator) -> list[Tensor]:
    """Initial weights and biases of all members."""
    return [
        (2 * torch.rand((_MEMBERS, rows, fan_out), generator=generator) - 1) / math.sqrt(fan_in)
        for fan_in, fan_out in ((features, _HIDDEN), (_HIDDEN, _HIDDEN), (_HIDDEN, 1))
        for rows in (fan_in, 1)  # weights and biases
    ]


def _train(layers: tuple[Tensor, ...], x: Tensor, y: Tensor, weights: Tensor) -> None:
    """Minimise the weighted squared errors of every member: the gradients of members are independent.

    Args:
        layers: as in `Ensemble`, for all members of all ensembles; modified in place.
        x: ``(members, n, features)``.
        y: ``(members, n)``.
        weights: of the networks, ``(members, n)``.
    """
    optimizer = torch.optim.AdamW(layers, lr=_RATE, weight_decay=_DECAY, fused=True)
    for step in range(_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - (1 - 1e-3) * step / _STEPS)
        loss = (weights * (_rest(layers[2:], torch.baddbmm(layers[1], x, layers[0])) - y) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _rest(layers: tuple[Tensor, ...], x: Tensor) -> Tensor:
    """Outputs of the first layers, ``(members, n, hidden)`` -> outputs of every member, ``(members, n)``."""
    for i in range(0, len(layers), 2):
        x = torch.baddbmm(layers[i + 1], functional.silu(x), layers[i])
    return x[..., 0]
