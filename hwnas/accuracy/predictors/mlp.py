"""Ensembles of MLPs on the encodings of BANANAS.

Source: White et al., "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search", AAAI
2021: an ensemble of MLPs on path encodings; the adjacency encoding is what the paper compares it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.accuracy.predictors.base import Floats, Sample
from hwnas.accuracy.predictors.encodings import Encoding, adjacency, paths
from hwnas.accuracy.predictors.members import Inputs, Members, Weights, initial, layer, train
from hwnas.spaces import Codes, Space

_HIDDEN = 64


def fit_adjacency(space: Space, samples: Sequence[Sample], seed: int) -> list[Members]:
    """An ensemble on the adjacency encoding for each sample."""
    encode = adjacency(space)
    return [_fit(encode, codes, values, seed) for codes, values in samples]


def fit_paths(space: Space, samples: Sequence[Sample], seed: int) -> list[Members]:
    """An ensemble on the path encoding for each sample."""
    return [_fit(paths(space, codes), codes, values, seed) for codes, values in samples]


def _fit(encode: Encoding, codes: Codes, values: Floats, seed: int) -> Members:
    features = encode(codes)
    deviation = features.std(axis=0)
    inputs = np.stack([features.mean(axis=0), np.where(deviation > 1e-6, deviation, 1.0)])
    generator = torch.Generator().manual_seed(seed)
    weights = initial({"first": features.shape[1], "second": _HIDDEN, "last": _HIDDEN}, _HIDDEN, generator)
    train(_outputs, weights, (_scaled(features, inputs),), values, generator)
    return Members(partial(_inputs, encode, inputs), _outputs, weights)


def _inputs(encode: Encoding, inputs: Floats, codes: Codes) -> Inputs:
    return (_scaled(encode(codes), inputs),)


def _scaled(features: Floats, inputs: Floats) -> Tensor:
    # A feature of one network in 500 has a deviation of 0.045: without a limit its presence would be a value of 22.
    return torch.tensor(((features - inputs[0]) / inputs[1]).clip(-5, 5), dtype=torch.float32)


def _outputs(weights: Weights, inputs: Inputs) -> Tensor:
    """Features ``(n, features)`` -> outputs of the members, ``(members, n)``."""
    x = functional.silu(layer(weights, "first", inputs[0]))
    x = functional.silu(layer(weights, "second", x))
    return layer(weights, "last", x).squeeze(-1)
