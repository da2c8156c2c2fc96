"""Relaxations of a categorical choice, and samples of it: from logits to the paths that run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from hwnas.search.differentiable.mixed import Paths
from hwnas.spaces import Space

Logits = Mapping[str, Tensor]
Draw = Callable[[Logits, float, torch.Generator], Paths]
"""Logits, a temperature and a source of randomness -> the paths that run."""


def softmax(logits: Logits, temperature: float, generator: torch.Generator) -> Paths:
    """All values, weighted by their probabilities (DARTS, equation 2)."""
    return _all({name: (value / temperature).softmax(dim=0) for name, value in logits.items()})


def concrete(logits: Logits, temperature: float, generator: torch.Generator) -> Paths:
    """All values, weighted by a concrete sample (Xie et al., "SNAS", ICLR 2019, equation 6; FBNet, equation 6)."""
    return _all({name: _gumbel_softmax(value, temperature, generator) for name, value in logits.items()})


def hard_gumbel(logits: Logits, temperature: float, generator: torch.Generator) -> Paths:
    """One value, with the gradient of the concrete sample that chose it (Dong and Yang, CVPR 2019, equation 7)."""
    weights, runs = {}, {}
    for name, value in logits.items():
        soft = _gumbel_softmax(value, temperature, generator)
        chosen = functional.one_hot(soft.argmax(), len(soft)).to(soft)
        weights[name], runs[name] = soft, chosen
    return Paths(_with_values(weights, runs), runs)


def one_path(logits: Logits, temperature: float, generator: torch.Generator) -> Paths:
    """One value, sampled by its probability, without a gradient (ProxylessNAS, equation 2: the binary gates)."""
    chosen = {}
    for name, value in logits.items():
        index = torch.multinomial(value.detach().softmax(dim=0).cpu(), 1, generator=generator)
        chosen[name] = functional.one_hot(index[0], len(value)).to(value)
    return Paths(chosen, chosen)


def two_paths(logits: Logits, temperature: float, generator: torch.Generator) -> Paths:
    """Two values, sampled by their probabilities, one of which is active (ProxylessNAS, section 3.2.1, equation 4).

    Both are computed, the inactive one only for the gradient of its gate; the update learns which of the two is better.
    """
    weights, runs, values = {}, {}, {}
    for name, value in logits.items():
        pair = torch.multinomial(value.detach().softmax(dim=0).cpu(), 2, generator=generator).to(value.device)
        between = value[pair].softmax(dim=0)
        active = torch.multinomial(between.detach().cpu(), 1, generator=generator)[0]
        gate = functional.one_hot(active, 2).to(value)
        empty = torch.zeros_like(value)
        weights[name] = empty.index_put((pair,), between)
        runs[name] = empty.index_put((pair,), torch.ones_like(gate))
        values[name] = empty.index_put((pair,), gate)
    return Paths(_with_values(weights, values), runs)


def fair_paths(space: Space, seed: int, step: int) -> list[Paths]:
    """The paths of a step in which every value of every variable is trained equally often.

    Strict fairness (Chu et al., "FairNAS", ICCV 2021, section 3.2). The number of paths is the largest number of
    values of a variable. Each variable iterates over successive random permutations of its values, independent of the
    boundaries of steps: after any number of draws, the counts of its values differ by at most one, and after a multiple
    of the number of values they are equal.
    """
    variables = [v for v in space.variables if len(v.values) > 1]
    count = max(len(v.values) for v in variables)
    found: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for number, variable in enumerate(variables):
        choices = len(variable.values)
        for k in range(count):
            turn, place = divmod(step * count + k, choices)
            order = np.random.default_rng((seed, number, turn)).permutation(choices)
            found[k][variable.name] = functional.one_hot(torch.tensor(int(order[place])), choices).float()
    return [Paths(weights, weights) for weights in found]


def _all(weights: dict[str, Tensor]) -> Paths:
    return Paths(weights, {name: torch.ones_like(value) for name, value in weights.items()})


def _gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    noise = -(-uniform.log()).log()
    return ((logits.log_softmax(dim=0) + noise.to(logits)) / temperature).softmax(dim=0)


class _StraightThrough(torch.autograd.Function):
    """The hard value with the gradient of the soft one; exact, unlike ``hard - soft + soft``, which is rounded."""

    @staticmethod
    def forward(ctx: FunctionCtx, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _with_values(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that have these values and keep their gradients."""
    return {name: _StraightThrough.apply(weight, values[name]) for name, weight in weights.items()}  # type: ignore[no-untyped-call]
