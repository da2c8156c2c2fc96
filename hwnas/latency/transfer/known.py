"""What is known before the new target is measured: the costs of its terms on other targets, and their networks.

A *term* is anything that a network has a number of: an op of a table, or one choice of one variable. A latency is
linear
in the terms, in milliseconds: on 13 devices, the sum over the choices of NAS-Bench-201 ranks 15,625 measured networks
with a mean Spearman correlation of 0.973, and the rest is uncorrelated between devices, i.e. noise. A sum of
log-latencies is worse (0.970), and its rest is correlated (up to 0.8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Whole networks that were timed on one target.

    Attributes:
        terms: how often each network has each term, ``(n, terms)``.
        latency_ms: ``(n,)``.
    """

    terms: Floats
    latency_ms: Floats

    def at(self, rows: npt.NDArray[np.intp] | Sequence[int]) -> Measured:
        """Some of the networks."""
        return Measured(terms=self.terms[rows], latency_ms=self.latency_ms[rows])


@dataclass(frozen=True, kw_only=True)
class Source:
    """A target that is known.

    Attributes:
        name: ``device/recipe``, or a column's name.
        device: sources of one device are left out together: batch sizes or recipes of a device are no independent
            check.
        cost_ms: milliseconds of each term, ``(terms,)``.
        measured: whole networks that were timed there; they judge the methods. None if there are none.
    """

    name: str
    device: str
    cost_ms: Floats
    measured: Measured | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """The sources of a transfer.

    Attributes:
        sources: at least one.
        kinds: a label for each term; the terms of a kind are expected to deviate together, ``(terms,)``.
        networks: random networks of the space, to which the prior's scales refer, ``(m, terms)``.
    """

    sources: tuple[Source, ...]
    kinds: tuple[str, ...]
    networks: Floats

    def without(self, device: str) -> Known:
        """The sources of other devices."""
        return replace(self, sources=tuple(source for source in self.sources if source.device != device))

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices, each once."""
        return tuple(dict.fromkeys(source.device for source in self.sources))

    @property
    def relative(self) -> Floats:
        """Costs of the terms with the mean latency of `networks` as the unit, ``(sources, terms)``.

        Raises:
            InvalidValue: a source predicts a mean latency that is not positive.
        """
        costs = np.array([source.cost_ms for source in self.sources])
        means = (costs @ self.networks.T).mean(axis=1)
        if not (means > 0).all():
            bad = self.sources[int(np.argmin(means))]
            raise InvalidValue(
                f"{bad.name} predicts a mean latency of {means.min():.4g} ms, which is not positive; "
                "leave it out of the sources"
            )
        return np.asarray(costs / means[:, None])


def fit_costs(measured: Measured, *, pull: float = 1e-3, toward: Floats | None = None) -> Floats:
    """Costs of terms from measured networks, by least squares on relative errors: ``(terms,)``.

    Errors of networks below half of the median latency are relative to that half: a network that a runtime reduces to
    nothing would weigh a thousand times as much as another. Outliers are weighted down as in
    `hwnas.latency.transfer.fitting`: 0.3% of the entries of a phone are up to five times too long.

    Args:
        measured: the networks.
        pull: toward 0, which makes the costs unique where terms occur only together; with `toward`, of each cost
            relative to that, toward it.
        toward: positive costs, ``(terms,)``.
    """
    size = np.maximum(measured.latency_ms, float(np.median(measured.latency_ms)) / 2)
    x, wanted = measured.terms / size[:, None], measured.latency_ms / size
    size_of, start = (np.ones(x.shape[1]), 0.0) if toward is None else (toward, x @ toward)
    x, wanted = x * size_of, wanted - start
    weights: Floats = np.ones(len(x))
    relative: Floats = np.zeros(x.shape[1])
    for _ in range(4):
        weighted = x * weights[:, None]
        normal = weighted.T @ x + pull * np.eye(x.shape[1])
        relative = np.asarray(np.linalg.solve(normal, weighted.T @ wanted), np.float64)
        error = wanted - x @ relative
        scale = max(float(np.median(np.abs(error))) * 1.4826, 1e-4)
        weights = 5 / (4 + (error / scale) ** 2)
    return np.asarray(size_of * relative if toward is None else toward + size_of * relative)
