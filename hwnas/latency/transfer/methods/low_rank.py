"""Empirical Bayes of low rank: the singular vectors of the sources, with the spread of their loadings as the prior.

The target's costs are the mean source plus a combination of the singular vectors of the sources' deviations. The prior
of a loading has the variance of the sources' loadings, as in probabilistic principal components (Tipping and Bishop,
1999, equation 8); what the vectors leave is a deviation of each kind.
"""

from __future__ import annotations

import numpy as np

from hwnas.latency.transfer.fitting import Prior, scaled
from hwnas.latency.transfer.known import Known, Measured
from hwnas.latency.transfer.methods.base import Method, deviations, grid, mean_source, of_kinds

_RANK = 3  # the fourth singular value is below a tenth of the first on the devices of HELP


def _prior(known: Known, _: Measured | None) -> Prior:
    unit, parts = mean_source(known), deviations(known)
    predicted = parts @ known.networks.T / (known.networks @ unit)
    loadings, sizes, _directions = np.linalg.svd(predicted - predicted.mean(axis=1, keepdims=True), full_matrices=False)
    vectors = loadings[:, :_RANK].T @ parts  # their effect on latencies is the singular value times the direction
    rest = parts - loadings[:, :_RANK] @ vectors
    blocks = (
        unit[None],
        scaled(vectors, known.networks, unit),
        scaled(rest, known.networks, unit) if len(sizes) > _RANK else 0 * parts,
        of_kinds(known, unit),
    )
    return Prior(unit=unit, mean=unit, blocks=blocks)


LOW_RANK = Method(
    name="low-rank",
    prior=_prior,
    scales=grid((0.3,), (0.3, 0.1, 1.0), (0.03, 0.1), (0.03, 0.1)),
)
