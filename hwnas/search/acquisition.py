"""Acquisition functions: which of the proposed networks to evaluate next, from means and standard deviations.

Sources: expected improvement, Mockus, 1975, and Jones et al., "Efficient Global Optimization of Expensive Black-Box
Functions", 1998 (equation 15); upper confidence bound, Srinivas et al., "Gaussian Process Optimization in the Bandit
Setting", ICML 2010 (equation 6, with a constant factor).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from hwnas.errors import UnknownName

Floats = npt.NDArray[np.float64]
Acquisition = Callable[[Floats, Floats, float], Floats]
"""Means and standard deviations ``(n,)``, and the best evaluated value -> the use of an evaluation, ``(n,)``."""

_SIGMAS = 1.0  # of the upper confidence bound


def by_mean(mean: Floats, deviation: Floats, best: float) -> Floats:
    """The mean: uncertainty does not count."""
    return mean


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """The expected excess over the best evaluated value; by means where it vanishes, so that every network has a place.

    Without a best value (-inf) every network improves, and the mean decides.
    """
    if not np.isfinite(best):
        return mean
    sigma = np.maximum(deviation, 1e-12)
    z = (mean - best) / sigma
    gain: Floats = sigma * (z * stats.norm.cdf(z) + stats.norm.pdf(z))
    return np.where(gain > 1e-9, gain, mean - best - 1.0)


def upper_bound(mean: Floats, deviation: Floats, best: float) -> Floats:
    """The mean and one standard deviation."""
    return mean + _SIGMAS * deviation


ACQUISITIONS: dict[str, Acquisition] = {"mean": by_mean, "ei": expected_improvement, "ucb": upper_bound}


def check_acquisition(name: str) -> None:
    """Check, before long work, that an acquisition function exists.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in ACQUISITIONS:
        raise UnknownName("acquisition", name, ACQUISITIONS)
