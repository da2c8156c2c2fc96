"""The stage-wise model: a logit link over a sum of functions of one stage each, the form that exact search works on.

``logit(accuracy) = constant + Σ over stages  f(variables of the stage, variables that it shares)``

What a stage contributes is a sum of effects: of each variable (a trend, single values, being there at all), of a
variable together with one that slots of several stages read (a larger kernel is worth more on a larger image), and of
pairs in a slot and in a stage. All effects are normal with mean 0; how large those of a kind are is found by the
marginal likelihood, so that effects which the data do not show vanish by themselves (Rasmussen and Williams, "Gaussian
Processes for Machine Learning", 2006, sections 2.7 and 5.4.1; Durrande et al., "Additive kernels for Gaussian process
modeling", 2012).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

_EDGE = 1e-4  # accuracies nearer to 0 or 1 than this are taken as this far away: their logit is infinite
_CENTRE, _WIDTH = -2.0, 10.0  # of the weak prior on the logarithm of the share that a kind of effects has
_ENOUGH = 500  # networks that tell the shares; solving for more takes cubic time


@dataclass(frozen=True, slots=True)
class Term:
    """Features of some variables: of each assignment of `axes` (columns of a code), ``(*choices, features)``."""

    axes: tuple[int, ...]
    basis: Floats

    def __call__(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> ``(n, features)``."""
        found: Floats = self.basis[tuple(codes[:, axis] for axis in self.axes)]
        return found


def logit(accuracies: Floats) -> Floats:
    """The link: fractions -> scores."""
    scores: Floats = special.logit(np.clip(accuracies, _EDGE, 1 - _EDGE))
    return scores


def fit_score(space: Space, codes: Codes, scores: Floats) -> SlotSum:
    """The sum over slots that fits some scores.

    Args:
        space: the space.
        codes: evaluated networks, ``(n, variables)``.
        scores: logits of their accuracies, ``(n,)``.
    """
    kinds = [kind for kind in _kinds(space).values() if kind]
    features = [np.concatenate([term(codes) for term in kind], axis=1) for kind in kinds]
    kernels = [x @ x.T for x in features]
    sizes = [max(float(np.trace(kernel)) / len(codes), 1e-12) for kernel in kernels]
    kernels = [kernel / size for kernel, size in zip(kernels, sizes, strict=True)]
    mean, scale = float(scores.mean()), float(scores.std()) or 1.0
    rows = np.random.default_rng(0).permutation(len(codes))[:_ENOUGH]
    shares = _shares([kernel[np.ix_(rows, rows)] for kernel in kernels], (scores[rows] - mean) / scale)
    covariance = _covariance(kernels, shares)
    solved = np.linalg.solve(covariance, scores - mean)
    axes, arrays = [], []
    for kind, x, share, size in zip(kinds, features, shares, sizes, strict=False):
        weights = share / size * (x.T @ solved)
        ends = np.cumsum([term.basis.shape[-1] for term in kind])
        for term, own in zip(kind, np.split(weights, ends[:-1]), strict=True):
            axes.append(term.axes)
            arrays.append(term.basis @ own)
    return SlotSum(constant=mean + float(solved.sum()), axes=tuple(axes), arrays=tuple(arrays))


def parameters(space: Space) -> int:
    """Single effects of a space: a constant, and one for each value of each variable beyond its first."""
    return 1 + sum(len(space.variables[i].values) - 1 for i in _free(space))


def single(space: Space) -> list[Term]:
    """The terms of single variables: trends, values, and whether their blocks are there."""
    free = _free(space)
    return [*(_trend(space, i) for i in free), *(_values(space, i) for i in free)]


# -- terms -----------------------------------------------------------------------------------------------


def _kinds(space: Space) -> dict[str, list[Term]]:
    """The terms by their kind; effects of a kind are expected to be of one size."""
    free = _free(space)
    trends, values = {i: _trend(space, i) for i in free}, {i: _values(space, i) for i in free}
    shared = {space.column[name] for name in space.shared}
    in_slot, in_stage = _pairs(space, free)
    return {
        "trend": list(trends.values()),
        "value": list(values.values()),
        "shared": [
            _product(_values(space, a if a in shared else b), trends[b if a in shared else a], space)
            for a, b in sorted(in_slot)
            if a in shared or b in shared
        ],
        "slot": [_product(trends[a], trends[b], space) for a, b in sorted(in_slot) if not {a, b} & shared],
        "stage": [_product(trends[a], trends[b], space) for a, b in sorted(in_stage - in_slot)],
    }


def _free(space: Space) -> list[int]:
    """Columns that make a difference: with several values, of which some network reads them."""
    return [
        i
        for i, v in enumerate(space.variables)
        if len(v.values) > 1 and (v.requires is None or max(space.variable(v.requires[0]).values) >= v.requires[1])
    ]


def _pairs(space: Space, free: list[int]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs of columns that one slot reads, and pairs that slots of one group alone read."""
    shared, in_slot = set(space.shared), set()
    members: dict[str, set[int]] = {}
    for slot in space.slots:
        read = sorted(space.column[name] for name in slot.variables if space.column[name] in free)
        in_slot |= set(itertools.combinations(read, 2))
        own = {space.column[name] for name in slot.variables if name not in shared} & set(free)
        members.setdefault(slot.group, set()).update(own)
    in_stage = {pair for own in members.values() for pair in itertools.combinations(sorted(own), 2)}
    return in_slot, in_stage


def _trend(space: Space, column: int) -> Term:
    """Larger is better on the whole: from -1 to 1."""
    return _where_it_matters(space, column, np.linspace(-1, 1, len(space.variables[column].values))[:, None])


def _values(space: Space, column: int) -> Term:
    """Each value by itself, and whether the variable matters at all: whether its block is there."""
    count = len(space.variables[column].values)
    own = np.eye(count) - 1 / count
    present = np.ones((count, 1 if space.variables[column].requires else 0))
    return _where_it_matters(space, column, np.concatenate([own, present], axis=1))


def _where_it_matters(space: Space, column: int, basis: Floats) -> Term:
    requires = space.variables[column].requires
    if requires is None:
        return Term((column,), basis)
    matters = np.array(space.variable(requires[0]).values) >= requires[1]
    return Term((space.column[requires[0]], column), matters[:, None, None] * basis)


def _product(a: Term, b: Term, space: Space) -> Term:
    """Every feature of one term times every feature of another."""
    axes = tuple(sorted({*a.axes, *b.axes}))
    shape = [len(space.variables[axis].values) for axis in axes]
    codes = np.zeros((int(np.prod(shape)), len(space.variables)), np.uint8)
    codes[:, axes] = np.indices(shape).reshape(len(axes), -1).T
    both = np.einsum("nf,ng->nfg", a(codes), b(codes))
    return Term(axes, both.reshape(*shape, -1))


# -- shares ----------------------------------------------------------------------------------------------


def _covariance(kernels: list[Floats], shares: Floats) -> Floats:
    """Of the scores: what each kind of effects adds, noise, and a constant that is hardly known."""
    count = len(kernels[0]) if kernels else 0
    total: Floats = shares[-1] * np.eye(count) + 1.0
    for kernel, share in zip(kernels, shares, strict=False):
        total += share * kernel
    return total


def _shares(kernels: list[Floats], scores: Floats) -> Floats:
    """The variance that each kind of effects, and last the noise, has: where the marginal likelihood is largest."""

    def loss(logs: Floats) -> tuple[float, Floats]:
        shares = np.exp(logs)
        covariance = _covariance(kernels, shares)
        factor = np.linalg.cholesky(covariance)
        inverse = np.linalg.inv(covariance)
        solved = inverse @ scores
        slack = inverse - np.outer(solved, solved)
        slopes = [share * float((slack * kernel).sum()) / 2 for share, kernel in zip(shares, kernels, strict=False)]
        slopes.append(shares[-1] * float(np.trace(slack)) / 2)
        away = (logs - _CENTRE) / _WIDTH
        value = float(scores @ solved) / 2 + float(np.log(np.diag(factor)).sum()) + float(away @ away) / 2
        return value, np.array(slopes) + away / _WIDTH

    start = np.full(len(kernels) + 1, _CENTRE)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-14.0, 6.0)] * len(start))
    return np.asarray(np.exp(found.x), np.float64)
