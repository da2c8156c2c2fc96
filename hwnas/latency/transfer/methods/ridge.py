"""Ridge regression on the sources' latencies and the numbers of each kind of term."""

from __future__ import annotations

from hwnas.latency.transfer.fitting import Prior, scaled
from hwnas.latency.transfer.known import Known, Measured
from hwnas.latency.transfer.methods.base import Method, grid, mean_source, of_kinds


def _prior(known: Known, _: Measured | None) -> Prior:
    unit = mean_source(known)
    blocks = (scaled(known.relative, known.networks, unit), of_kinds(known, unit))
    return Prior(unit=unit, mean=0 * unit, blocks=blocks)


RIDGE = Method(name="ridge", prior=_prior, scales=grid((3.0, 1.0, 10.0), (0.1, 0.03, 0.3)))
