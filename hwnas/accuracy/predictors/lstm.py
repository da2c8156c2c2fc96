"""An LSTM over the ops of a network, in the order of execution.

Source: the sequence encoder of Luo et al., "Neural Architecture Optimization", NeurIPS 2018 (section 3.2), with the ops
and their shapes as inputs. A place without an op is a step of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hwnas.accuracy.predictors.base import Floats, Sample
from hwnas.accuracy.predictors.graph import op_scale, tensors
from hwnas.accuracy.predictors.members import MEMBERS, Inputs, Members, Weights, initial, layer, train
from hwnas.accuracy.predictors.structure import Graphs, Structure
from hwnas.spaces import Codes, Space

_HIDDEN = 24


def fit_lstm(space: Space, samples: Sequence[Sample], seed: int) -> list[Members]:
    """An ensemble for each sample."""
    structure = Structure.of(space)
    return [_fit(structure, codes, values, seed) for codes, values in samples]


def _fit(structure: Structure, codes: Codes, values: Floats, seed: int) -> Members:
    graphs = structure.graphs(codes)
    scale = op_scale(graphs)
    inputs = _steps(graphs, scale)
    generator = torch.Generator().manual_seed(seed)
    names = [f"{way}.{gate}" for way in ("x", "h") for gate in "ifgo"]
    widths = {name: inputs[0].shape[-1] if name.startswith("x") else _HIDDEN for name in names}
    weights = initial({**widths, "last": 2 * _HIDDEN}, _HIDDEN, generator)
    train(_outputs, weights, inputs, values, generator)
    return Members(partial(_inputs, structure, scale), _outputs, weights)


def _inputs(structure: Structure, scale: Tensor, codes: Codes) -> Inputs:
    return _steps(structure.graphs(codes), scale)


def _steps(graphs: Graphs, scale: Tensor) -> Inputs:
    """The steps of each network: features of the op, and whether there is one, ``(n, places, features + 1)``."""
    ops, present, _ = tensors(graphs, scale)
    return (torch.cat([ops, present], dim=-1),)


def _outputs(weights: Weights, inputs: Inputs) -> Tensor:
    """Steps -> outputs of the members, ``(members, n)``; read from the last state and from the mean of all."""
    [steps] = inputs
    n, places, _ = steps.shape
    gates = {
        way: (
            torch.cat([weights[f"{way}.{gate}.weight"] for gate in "ifgo"], dim=-1),
            torch.cat([weights[f"{way}.{gate}.bias"] for gate in "ifgo"], dim=-1),
        )
        for way in "xh"
    }
    given = (steps.flatten(0, 1) @ gates["x"][0] + gates["x"][1]).unflatten(1, (n, places))
    state = cell = given.new_zeros((MEMBERS, n, _HIDDEN))
    states = []
    for at in range(places):
        into, forget, new, out = torch.baddbmm(given[:, :, at] + gates["h"][1], state, gates["h"][0]).chunk(4, dim=-1)
        cell = (forget + 1).sigmoid() * cell + into.sigmoid() * new.tanh()
        state = out.sigmoid() * cell.tanh()
        states.append(state)
    read = torch.cat([state, torch.stack(states).mean(dim=0)], dim=-1)
    return layer(weights, "last", read).squeeze(-1)
