"""Shrinkage of each term toward the best mixture of sources, in a hierarchy: mixture, kinds, single terms.

The mixture has weights of at least 0 (Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23), which are
0 for most sources: it selects those that resemble the target.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from hwnas.latency.transfer.fitting import Prior
from hwnas.latency.transfer.known import Floats, Known, Measured
from hwnas.latency.transfer.methods.base import Method, grid, mean_source, of_kinds, of_terms

_EVEN = 0.1  # pull toward equal weights, as errors of that size: a few measurements do not distinguish similar sources


def _prior(known: Known, measured: Measured | None) -> Prior:
    unit = mean_source(known)
    mean = unit if measured is None else _mixture(known.relative, unit, measured)
    return Prior(unit=unit, mean=mean, blocks=(unit[None], of_kinds(known, unit), of_terms(known, unit)))


def _mixture(relative: Floats, unit: Floats, measured: Measured) -> Floats:
    """Relative costs of the mixture, ``(terms,)``, with a level of about 1."""
    wanted = measured.latency_ms / (measured.terms @ unit)
    wanted = wanted / np.median(wanted)
    x = measured.terms @ relative.T / (measured.terms @ unit)[:, None]
    count = len(relative)
    rows = np.concatenate([x, _EVEN * np.eye(count)])
    weights, _ = nnls(rows, np.concatenate([wanted, np.full(count, _EVEN / count)]))
    return np.asarray(weights @ relative)


MIXTURE = Method(
    name="mixture",
    prior=_prior,
    scales=grid((0.1, 0.3), (0.1, 0.03, 0.3), (0.03, 0.01, 0.1)),
)
