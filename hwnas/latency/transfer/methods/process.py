"""A Gaussian process over networks, whose kernel is that of the sources plus those of the kinds and of single terms."""

from __future__ import annotations

from hwnas.latency.transfer.fitting import Prior, scaled
from hwnas.latency.transfer.known import Known, Measured
from hwnas.latency.transfer.methods.base import Method, deviations, grid, mean_source, of_kinds, of_terms


def _prior(known: Known, _: Measured | None) -> Prior:
    unit = mean_source(known)
    blocks = (
        unit[None],
        scaled(deviations(known), known.networks, unit),
        of_kinds(known, unit),
        of_terms(known, unit),
    )
    return Prior(unit=unit, mean=0 * unit, blocks=blocks)


GAUSSIAN_PROCESS = Method(
    name="gaussian-process",
    prior=_prior,
    scales=grid((3.0,), (0.3, 0.1, 1.0), (0.1, 0.03, 0.3), (0.03, 0.01, 0.1)),
)
