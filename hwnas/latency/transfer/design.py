"""Which networks to measure on a new target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue
from hwnas.latency.transfer.known import Floats, Known
from hwnas.latency.transfer.methods import METHODS

Rows = npt.NDArray[np.intp]
Design = Callable[[Floats, int, float, np.random.Generator], Rows]

DESIGN = "determinant"  # at least as good as random networks on 49 of 52 held-out devices, variance on 43; 10 draws
_CAUTION = 4.0  # the noise that a design assumes, in units of that of the prior: see `_determinant`
_POOL = 400  # candidates of a design: covariances of more take longer and change the error by less than its spread


def _random(coordinates: Floats, count: int, noise: float, rng: np.random.Generator) -> Rows:
    """Networks at random."""
    return rng.permutation(len(coordinates))[:count]


def _variance(coordinates: Floats, count: int, noise: float, rng: np.random.Generator) -> Rows:
    """Each network reduces the mean variance of all candidates most: A-optimal, one at a time."""
    return _greedy(coordinates, count, noise, lambda kernel, seen: (kernel**2).sum(axis=0) / seen)


def _determinant(coordinates: Floats, count: int, noise: float, rng: np.random.Generator) -> Rows:
    """Each network is the one with the largest variance: D-optimal, one at a time.

    With little noise it takes extreme networks only, each once, and one run that is too long then misleads the fit.
    With 4 times the noise several of them share a direction: 0.972 instead of 0.970 with 20 networks of NAS-Bench-201.
    """
    return _greedy(coordinates, count, noise, lambda kernel, seen: np.diag(kernel).copy())


def _coverage(coordinates: Floats, count: int, noise: float, rng: np.random.Generator) -> Rows:
    """The medoids of clusters of the candidates in the prior's coordinates (k-means++ start, then k-medoids)."""
    distance = np.sqrt(np.maximum(((coordinates[:, None] - coordinates[None]) ** 2).sum(axis=2), 0.0))
    chosen = [int(rng.integers(len(coordinates)))]
    while len(chosen) < count:
        nearest = distance[:, chosen].min(axis=1) ** 2
        nearest[chosen] = 0
        chosen.append(int(rng.choice(len(nearest), p=nearest / nearest.sum())))
    for _ in range(10):
        owner = distance[:, chosen].argmin(axis=1)
        following = []
        for i, medoid in enumerate(chosen):
            members = np.flatnonzero(owner == i)
            best = members[distance[np.ix_(members, members)].sum(axis=1).argmin()] if len(members) else medoid
            following.append(int(best))
        if following == chosen:
            break
        chosen = following
    return np.array(chosen)


def _mixed(coordinates: Floats, count: int, noise: float, rng: np.random.Generator) -> Rows:
    """Half by variance, half at random."""
    first = _variance(coordinates, count - count // 2, noise, rng)
    others = np.setdiff1d(np.arange(len(coordinates)), first)
    return np.concatenate([first, rng.permutation(others)[: count // 2]])


def _greedy(coordinates: Floats, count: int, noise: float, gain: Callable[[Floats, Floats], Floats]) -> Rows:
    kernel = coordinates @ coordinates.T
    chosen: list[int] = []
    for _ in range(count):
        seen = np.diag(kernel) + noise**2
        gains = gain(kernel, seen)
        gains[chosen] = -np.inf
        best = int(gains.argmax())
        chosen.append(best)
        kernel = kernel - np.outer(kernel[:, best], kernel[best]) / seen[best]
    return np.array(chosen)


DESIGNS: dict[str, Design] = {
    "variance": _variance,
    "determinant": _determinant,
    "coverage": _coverage,
    "mixed": _mixed,
    "random": _random,
}


def choose(
    known: Known, candidates: Floats, count: int, *, design: str = DESIGN, seed: int | tuple[int, ...] = 0
) -> Rows:
    """Networks to measure.

    Args:
        known: the sources; the prior of the Gaussian process over them defines variances and distances.
        candidates: networks that can be measured, ``(n, terms)``.
        count: how many.
        design: one of `DESIGNS`.
        seed: of the draw of at most 400 candidates that the design considers.

    Returns:
        rows of `candidates`, ``(count,)``, in the order in which to measure them.

    Raises:
        InvalidValue: there are fewer candidates.
    """
    if len(candidates) < count:
        raise InvalidValue(f"{count} networks cannot be chosen from {len(candidates)}; ask for fewer")
    rng = np.random.default_rng(seed)
    pool = rng.permutation(len(candidates))[: max(_POOL, count)]
    method = METHODS["gaussian-process"]
    prior, scales = method.prior(known, None), method.scales[0]
    unit = candidates[pool] @ prior.unit
    spread = np.concatenate([sd * block for sd, block in zip(scales.blocks, prior.blocks, strict=True)])
    coordinates = candidates[pool] @ spread.T / np.maximum(unit, 0.05 * np.median(unit))[:, None]
    return np.asarray(pool[DESIGNS[design](coordinates, count, _CAUTION * scales.noise, rng)])
