"""What a method of transfer is, and the parts that priors are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.latency.transfer.fitting import Prior, Scales, scaled
from hwnas.latency.transfer.known import Floats, Known, Measured


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of transfer: a prior, and the scales that leave-one-device-out chooses from.

    Attributes:
        name: in options, manifests and reports.
        prior: the sources and the measured networks -> the prior. Most methods ignore the measurements.
        scales: candidates, of which the first is the default of a design.
    """

    name: str
    prior: Callable[[Known, Measured | None], Prior]
    scales: tuple[Scales, ...]


def grid(*blocks: Sequence[float], noise: Sequence[float] = (0.1, 0.03, 0.2)) -> tuple[Scales, ...]:
    """All combinations of the standard deviations of blocks and noise."""
    return tuple(Scales(tuple(sds), sigma) for *sds, sigma in itertools.product(*blocks, noise))


def mean_source(known: Known) -> Floats:
    """Relative costs of the mean source, ``(terms,)``."""
    return np.asarray(known.relative.mean(axis=0))


def deviations(known: Known) -> Floats:
    """Relative costs of the sources less their mean, ``(sources, terms)``."""
    relative = known.relative
    return np.asarray(relative - relative.mean(axis=0))


def of_kinds(known: Known, unit: Floats) -> Floats:
    """A deviation for each kind of term, which its terms share: ``(kinds, terms)``, scaled."""
    size = _size(unit)
    names = tuple(dict.fromkeys(known.kinds))
    labels = np.array(known.kinds)
    return scaled(np.array([np.where(labels == name, size, 0.0) for name in names]), known.networks, unit)


def of_terms(known: Known, unit: Floats) -> Floats:
    """A deviation for each term alone: ``(terms, terms)``, scaled."""
    return scaled(np.diag(_size(unit)), known.networks, unit)


def _size(unit: Floats) -> Floats:
    """Expected size of the deviation of a term: half proportional to its cost, half the same for all.

    A runtime's overhead is the same for cheap and expensive ops, its arithmetic is not.
    """
    cost = np.abs(unit)
    return np.asarray((cost + cost.mean()) / 2)
