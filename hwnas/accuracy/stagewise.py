"""The stage-wise model: a logit link over a sum of functions of one stage each, as exact search requires.

``logit(accuracy) = constant + Σ over stages  f(variables of the stage, variables that it shares)``

The contribution of a stage is a sum of effects: of each variable (a trend, single values, the presence of its block),
of a variable together with one that slots of several stages read (a larger kernel gains more on a larger image), and of
pairs in a slot and in a stage. All effects have normal priors with mean 0. The variance of each kind of effects
maximises the marginal likelihood, so that effects without support in the data vanish (Rasmussen and Williams,
"Gaussian Processes for Machine Learning", 2006, sections 2.7 and 5.4.1; Durrande et al., "Additive kernels for Gaussian
process modeling", 2012).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg, optimize, special

from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

_EDGE = 1e-4  # accuracies are clipped to this distance from 0 and 1, where the logit is infinite
_CENTRE, _WIDTH = -2.0, 10.0  # of the weak prior on the log share of a kind of effects
_ENOUGH = 500  # networks for estimating the shares, which takes cubic time


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


@dataclass(frozen=True, kw_only=True)
class Stagewise:
    """A fitted stage-wise model: the posterior of a sum of effects.

    Attributes:
        score: the posterior mean, a sum over slots.
        kinds: the terms of each kind of effects.
        variances: prior variance of the effects of each kind.
        constant: prior variance of the constant.
        features: of the networks of the fit by kind, ``(n, features)`` each.
        factor: Cholesky factor of the covariance of their values, lower, ``(n, n)``.
    """

    score: SlotSum
    kinds: list[list[Term]]
    variances: list[float]
    constant: float
    features: list[Floats]
    factor: Floats

    def predict(self, codes: Codes) -> tuple[Floats, Floats]:
        """Codes ``(n, variables)`` -> posterior means and standard deviations, ``(n,)`` each."""
        own, shared = np.full(len(codes), self.constant), np.full((len(self.factor), len(codes)), self.constant)
        for kind, variance, x in zip(self.kinds, self.variances, self.features, strict=True):
            fresh = _features(kind, codes)
            own += variance * (fresh**2).sum(axis=1)
            shared += variance * (x @ fresh.T)
        known = linalg.solve_triangular(self.factor, shared, lower=True)
        return self.score(codes), np.sqrt(np.maximum(own - (known**2).sum(axis=0), 0.0))


def fit_score(space: Space, codes: Codes, scores: Floats) -> SlotSum:
    """Fit a sum over slots to scores.

    Args:
        space: the space.
        codes: evaluated networks, ``(n, variables)``.
        scores: logits of their accuracies, ``(n,)``.
    """
    return _fit(space, codes, scores).score


def fit_stagewise(space: Space, samples: Sequence[tuple[Codes, Floats]], seed: int = 0) -> list[Stagewise]:
    """A model for each sample of networks ``(n, variables)`` and values ``(n,)``; nothing is drawn from the seed."""
    return [_fit(space, codes, values) for codes, values in samples]


def _fit(space: Space, codes: Codes, scores: Floats) -> Stagewise:
    kinds = [kind for kind in _kinds(space).values() if kind]
    features = [_features(kind, codes) for kind in kinds]
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
    return Stagewise(
        score=SlotSum(constant=mean + float(solved.sum()), axes=tuple(axes), arrays=tuple(arrays)),
        kinds=kinds,
        variances=[scale**2 * float(share) / size for share, size in zip(shares, sizes, strict=False)],
        constant=scale**2,
        features=features,
        factor=scale * linalg.cholesky(covariance, lower=True),
    )


def _features(kind: list[Term], codes: Codes) -> Floats:
    """Codes ``(n, variables)`` -> features of a kind of effects, ``(n, features)``."""
    return np.concatenate([term(codes) for term in kind], axis=1)


def parameters(space: Space) -> int:
    """Single effects of a space: a constant, and one for each value of each variable beyond its first."""
    return 1 + sum(len(space.variables[i].values) - 1 for i in _free(space))


def coupled(space: Space) -> tuple[tuple[int, ...], ...]:
    """Columns of a code that terms of a model read together."""
    in_slot, in_stage = _pairs(space, _free(space))
    return tuple(sorted(in_slot | in_stage))


def single(space: Space) -> list[Term]:
    """The terms of single variables: trends, values, and presence of their blocks."""
    free = _free(space)
    return [*(_trend(space, i) for i in free), *(_values(space, i) for i in free)]


# -- terms -----------------------------------------------------------------------------------------------


def _kinds(space: Space) -> dict[str, list[Term]]:
    """The terms by kind; effects of a kind share a prior variance."""
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
    """Columns with an effect: variables with several values that some slot reads."""
    return [
        i
        for i, v in enumerate(space.variables)
        if len(v.values) > 1 and all(one.matters.any() for one in space.conditions[i])
    ]


def _pairs(space: Space, free: list[int]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Pairs of columns that one slot reads, and pairs that only slots of one group read."""
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
    """A linear trend from -1 to 1."""
    return _where_it_matters(space, column, np.linspace(-1, 1, len(space.variables[column].values))[:, None])


def _values(space: Space, column: int) -> Term:
    """An indicator of each value, and one of the presence of the variable's block."""
    count = len(space.variables[column].values)
    own = np.eye(count) - 1 / count
    present = np.ones((count, 1 if space.conditions[column] else 0))
    return _where_it_matters(space, column, np.concatenate([own, present], axis=1))


def _where_it_matters(space: Space, column: int, basis: Floats) -> Term:
    conditions = space.conditions[column]
    for one in reversed(conditions):
        basis = np.multiply.outer(one.matters.astype(np.float64), basis)
    return Term((*(one.column for one in conditions), column), basis)


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
    """Covariance of the scores: the effects of each kind, noise, and a constant with a wide prior."""
    count = len(kernels[0]) if kernels else 0
    total: Floats = shares[-1] * np.eye(count) + 1.0
    for kernel, share in zip(kernels, shares, strict=False):
        total += share * kernel
    return total


def _shares(kernels: list[Floats], scores: Floats) -> Floats:
    """The variance of each kind of effects and, last, of the noise, by maximum marginal likelihood."""

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
