"""Encodings of networks as vectors.

Sources: White et al., "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search", AAAI
2021 (section 3.1, path encoding); White et al., "A Study on Encodings for Neural Architecture Search", NeurIPS 2020
(section 3, adjacency encodings).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from hwnas.accuracy.predictors.base import Floats
from hwnas.accuracy.predictors.structure import Structure
from hwnas.accuracy.stagewise import single
from hwnas.spaces import Codes, Space

COSTS = 2  # last features of `described`

Encoding: TypeAlias = Callable[[Codes], Floats]
"""Codes ``(n, variables)`` -> features ``(n, features)``."""


def adjacency(space: Space) -> Encoding:
    """The one-hot adjacency encoding: an indicator of each value of each variable; 0 for a variable without effect.

    In a cell a variable is an edge with its operation, or the inputs of a node; in a chain it is an attribute of a
    block.
    """
    counts = [len(variable.values) for variable in space.variables]

    def encode(codes: Codes) -> Floats:
        columns = []
        for i, count in enumerate(counts):
            present = np.ones(len(codes), bool)
            for one in space.conditions[i]:
                present &= one.matters[codes[:, one.column]]
            columns.append((codes[:, i, None] == np.arange(count)) & present[:, None])
        return np.concatenate(columns, axis=1).astype(np.float64)

    return encode


def described(space: Space) -> Encoding:
    """What is known of a network without its graph: values and trends of its variables, and its cost.

    The cost is the logarithms of MACs and parameters.
    """
    terms = single(space)

    def encode(codes: Codes) -> Floats:
        costs = np.stack([np.log1p(space.macs(codes)), np.log1p(space.params(codes))], axis=1)
        return np.concatenate([*(term(codes) for term in terms), costs], axis=1)

    return encode


def paths(space: Space, codes: Codes) -> Encoding:
    """The path encoding: whether a cell has a path of these operations from its input to its output.

    Args:
        space: a space of cells.
        codes: networks, ``(n, variables)``: their paths are the features, so that a fit on few networks has few.
    """
    structure = Structure.of(space)
    found = sorted({path for row in codes for path in structure.paths(row)})
    place = {path: i for i, path in enumerate(found)}

    def encode(codes: Codes) -> Floats:
        features = np.zeros((len(codes), len(place)))
        for features_of, row in zip(features, codes, strict=True):
            features_of[[place[path] for path in structure.paths(row) if path in place]] = 1
        return features

    return encode
