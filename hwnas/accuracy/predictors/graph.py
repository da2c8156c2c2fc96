"""Directed message passing over the graphs of networks.

A node's state starts from the features of its op. In each round it is updated from its own state, from the states of
the nodes that it reads, and from those of the nodes that read it, with separate weights for the two directions:

``h ← h + silu(W h + W_in Σ h(read) + W_out Σ h(reader))``

The prediction is a function of the sum (over the number of places) and the maximum of the states. Sources: Dudziak et
al., "BRP-NAS: Prediction-based NAS using GCNs", NeurIPS 2020 (section 3); Akhauri and Abdelfattah, "On Latency
Predictors for Neural Architecture Search", MLSys 2024 (directed graph flow with residual connections).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.accuracy.predictors.base import Floats, Sample
from hwnas.accuracy.predictors.members import Inputs, Members, Weights, initial, layer, train
from hwnas.accuracy.predictors.structure import Graphs, Structure
from hwnas.spaces import Codes, Space

_HIDDEN = 24
_ROUNDS = 3


def fit_graph(space: Space, samples: Sequence[Sample], seed: int) -> list[Members]:
    """An ensemble for each sample."""
    structure = Structure.of(space)
    return [_fit(structure, codes, values, seed) for codes, values in samples]


def _fit(structure: Structure, codes: Codes, values: Floats, seed: int) -> Members:
    graphs = structure.graphs(codes)
    scale = op_scale(graphs)
    generator = torch.Generator().manual_seed(seed)
    inputs = {"embed": scale.shape[1], "head": 2 * _HIDDEN, "last": _HIDDEN}
    inputs |= {f"{way}{i}": _HIDDEN for i in range(_ROUNDS) for way in ("own", "reads", "readers")}
    weights = initial(inputs, _HIDDEN, generator)
    train(_outputs, weights, tensors(graphs, scale), values, generator)
    return Members(partial(_inputs, structure, scale), _outputs, weights)


def _inputs(structure: Structure, scale: Tensor, codes: Codes) -> Inputs:
    return tensors(structure.graphs(codes), scale)


def op_scale(graphs: Graphs) -> Tensor:
    """Mean and standard deviation of the features of all ops of networks, ``(2, features)``."""
    ops = torch.from_numpy(graphs.ops[graphs.present])
    return torch.stack([ops.mean(dim=0), ops.std(dim=0, correction=0) + 1e-3])


def tensors(graphs: Graphs, scale: Tensor) -> Inputs:
    """Scaled features of ops ``(n, places, features)``, presence ``(n, places, 1)``, edges ``(n, places, places)``."""
    present = torch.from_numpy(graphs.present).float().unsqueeze(-1)
    ops = ((torch.from_numpy(graphs.ops) - scale[0]) / scale[1]).clamp(-5, 5) * present
    return ops, present, torch.from_numpy(graphs.edges).float()


def _outputs(weights: Weights, inputs: Inputs) -> Tensor:
    """Graphs -> outputs of the members, ``(members, n)``."""
    ops, present, edges = inputs
    n, places, _ = ops.shape

    def linear(name: str, x: Tensor) -> Tensor:
        return split(layer(weights, name, x.flatten(-3, -2)))

    def split(flat: Tensor) -> Tensor:
        """``(members, n * places, hidden)`` -> ``(members, n, places, hidden)``."""
        return flat.reshape(len(flat), n, places, -1)

    def passed(name: str, x: Tensor, ways: Tensor) -> Tensor:
        """Sums of states over edges, without the bias, which an empty sum does not have."""
        return torch.matmul(ways, split(x.flatten(1, 2) @ weights[f"{name}.weight"]))

    state = functional.silu(linear("embed", ops)) * present
    back = edges.transpose(1, 2)
    for i in range(_ROUNDS):
        update = linear(f"own{i}", state) + passed(f"reads{i}", state, edges) + passed(f"readers{i}", state, back)
        state = state + functional.silu(update) * present
    mean = state.sum(dim=2) / places
    read = torch.cat([mean, state.amax(dim=2)], dim=-1)
    return layer(weights, "last", functional.silu(layer(weights, "head", read))).squeeze(-1)
