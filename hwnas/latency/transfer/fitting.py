"""The fit of a new target: a Gaussian prior on the costs of the terms, and skewed Student noise on relative errors.

With t the measured latencies over those of the mean source, and K the prior's covariance of t, the posterior is that of
a Gaussian process (Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25 and 2.26)
whose noise of each measurement is divided by its weight. Weights follow by expectation maximisation (Lange, Little and
Taylor, "Robust Statistical Modeling Using the t Distribution", 1989, section 3): the latencies of phones have a
kurtosis of up to 43, i.e. rare measurements that are far too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwnas.latency.transfer.known import Floats, Measured

# Degrees of freedom of the noise above a prediction and below it: other load makes a run slower, nothing makes it
# faster. On one phone 5% of the measurements are 50% to 150% too long, two of ten in some draws; with 4 and 4 the fit
# followed them: mean Spearman correlation of 0.919 instead of 0.923 over FBNet's 13 columns, 10 networks, 40 draws.
_FREEDOM_SLOW = 1.0
_FREEDOM_FAST = 30.0
_ROUNDS = 4  # of the weights; they change by less than 1% after that
_PRIOR = 0.5  # measurements that the noise of the scales stands for beside the target's own


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Costs of terms before the measurement: ``scale · (mean + Σ over blocks  sd · factorᵀ z)``, z standard normal.

    Attributes:
        unit: relative costs of the mean source; errors are relative to its latencies, ``(terms,)``.
        mean: ``(terms,)``.
        blocks: factors of independent parts of the prior, each ``(rank, terms)``.
    """

    unit: Floats
    mean: Floats
    blocks: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Scales:
    """Standard deviations of a prior and of the noise, relative to the latency.

    Attributes:
        blocks: one for each block of the prior.
        noise: of a measurement.
    """

    blocks: tuple[float, ...]
    noise: float


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The costs of a new target's terms.

    Attributes:
        cost_ms: ``(terms,)``.
        spread: square root of the covariance of the costs, in milliseconds, before the measurement: ``(rank, terms)``.
        seen: the measured networks in the prior's coordinates, ``(k, rank)``.
        inverse: of their covariance, ``(k, k)``.
        noise: estimated standard deviation of a measurement from its prediction by the others, as a fraction of the
            latency.
    """

    cost_ms: Floats
    spread: Floats
    seen: Floats
    inverse: Floats
    noise: float

    def predict(self, terms: Floats) -> Floats:
        """Latencies in milliseconds: ``(n, terms)`` -> ``(n,)``."""
        return np.asarray(terms @ self.cost_ms)

    def covariance(self, a: Floats, b: Floats) -> Floats:
        """Covariance of the latencies of networks, in ms²: ``(n, terms)`` and ``(m, terms)`` -> ``(n, m)``."""
        left, right = a @ self.spread.T, b @ self.spread.T
        return np.asarray(left @ right.T - (left @ self.seen.T) @ self.inverse @ (self.seen @ right.T))

    def sd_ms(self, terms: Floats) -> Floats:
        """Standard deviation of the latencies of networks, in milliseconds: ``(n, terms)`` -> ``(n,)``."""
        left = terms @ self.spread.T
        part = left @ self.seen.T
        variance = (left**2).sum(axis=1) - ((part @ self.inverse) * part).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Fits of the same measurements with several scales.

    Attributes:
        cost_ms: ``(scales, terms)``.
        weights: of the measurements, 1 for a usual one, ``(scales, k)``.
        inverses: of their covariance, ``(scales, k, k)``.
        left_out: errors of the predictions of each measurement from the others, as fractions of it, ``(scales, k)``.
        evidence: how well each measurement is predicted from the others, ``(scales,)``.
    """

    cost_ms: Floats
    weights: Floats
    inverses: Floats
    left_out: Floats
    evidence: Floats


def fit_many(prior: Prior, scales: Sequence[Scales], measured: Measured) -> Fits:
    """The fit for several scales of a prior at once."""
    level, unit = _level(prior, measured)
    rows = [measured.terms @ block.T / unit[:, None] for block in prior.blocks]
    kernels = np.array([row @ row.T for row in rows])
    sds = np.array([scale.blocks for scale in scales])
    noise = np.array([scale.noise**2 for scale in scales])[:, None]
    covariance = np.tensordot(sds**2, kernels, 1)
    wanted = measured.latency_ms / (level * unit) - measured.terms @ prior.mean / unit
    weights = np.ones((len(scales), len(wanted)))
    diagonal = np.eye(len(wanted), dtype=bool)
    for _ in range(_ROUNDS):
        inverse = np.linalg.inv(covariance + np.where(diagonal, (noise / weights)[:, None, :], 0.0))
        solved = inverse @ wanted
        kept = covariance - covariance @ inverse @ covariance
        error = wanted - (covariance @ solved[:, :, None])[:, :, 0]
        spread = np.maximum(kept[:, diagonal], 0.0)
        freedom = _freedom(error)
        weights = (freedom + 1) / (freedom + (error**2 + spread) / noise)
    inverse = np.linalg.inv(covariance + np.where(diagonal, (noise / weights)[:, None, :], 0.0))
    solved = inverse @ wanted
    costs = np.repeat(prior.mean[None], len(scales), axis=0)
    for b, (block, row) in enumerate(zip(prior.blocks, rows, strict=True)):
        costs += sds[:, b, None] ** 2 * ((solved @ row) @ block)
    return Fits(
        cost_ms=level * costs,
        weights=weights,
        inverses=inverse,
        left_out=solved / inverse[:, diagonal] * (level * unit / measured.latency_ms),
        evidence=_evidence(solved, inverse[:, diagonal], noise / weights, noise),
    )


def _evidence(solved: Floats, precision: Floats, own: Floats, noise: Floats) -> Floats:
    """Log-density of each measurement, predicted from the others, summed: ``(scales,)``.

    From the inverse of the covariance (Rasmussen and Williams, equation 5.12), under the Student noise.
    The density is that of two halves of equal height, so what it lacks of a constant is the same for all scales.

    Args:
        solved: inverse times the measurements, ``(scales, k)``.
        precision: diagonal of the inverse, ``(scales, k)``.
        own: variance of the noise of each measurement, with its weight, ``(scales, k)``.
        noise: without it, ``(scales, 1)``.
    """
    error, variance = solved / precision, np.maximum(1 / precision - own, 0.0) + noise
    freedom = _freedom(error)
    density = (freedom + 1) / 2 * np.log1p(error**2 / variance / freedom) + np.log(variance) / 2
    return np.asarray(-density.sum(axis=1))


def fit(prior: Prior, scales: Scales, measured: Measured) -> Posterior:
    """The fit of a new target from its measured networks."""
    found = fit_many(prior, [scales], measured)
    cost_ms, weights = found.cost_ms[0], found.weights[0]
    level, unit = _level(prior, measured)
    spread = np.concatenate([sd * block for sd, block in zip(scales.blocks, prior.blocks, strict=True)])
    # Errors of the fit itself would be near 0 on a target that is noisier than its sources: it follows the noise.
    squares = (weights * found.left_out[0] ** 2).sum()
    noise = np.sqrt((scales.noise**2 * _PRIOR + squares) / (_PRIOR + len(weights)))
    return Posterior(
        cost_ms=cost_ms,
        spread=level * spread,
        seen=measured.terms @ spread.T / unit[:, None],
        inverse=found.inverses[0],
        noise=float(noise),
    )


def _freedom(error: Floats) -> Floats:
    """Degrees of freedom of the noise at errors (measured minus predicted) of any shape."""
    return np.where(error > 0, _FREEDOM_SLOW, _FREEDOM_FAST)


def _level(prior: Prior, measured: Measured) -> tuple[float, Floats]:
    """The geometric mean of measured latencies over those of the mean source; and the latter, ``(k,)``."""
    unit = measured.terms @ prior.unit
    unit = np.maximum(unit, 0.05 * float(np.median(np.abs(unit))))
    return float(np.exp(np.median(np.log(measured.latency_ms / unit)))), unit


def scaled(block: Floats, networks: Floats, unit: Floats) -> npt.NDArray[np.float64]:
    """A block that moves the latencies of random networks by 1 of their relative values, apart from their level.

    Args:
        block: ``(rank, terms)``.
        networks: ``(m, terms)``.
        unit: relative costs of the mean source, ``(terms,)``.
    """
    moved = networks @ block.T / np.maximum(networks @ unit, 1e-3)[:, None]
    size = float(np.sqrt(((moved - moved.mean(axis=0)) ** 2).sum(axis=1).mean()))
    return block / size if size > 1e-9 else np.zeros_like(block)
