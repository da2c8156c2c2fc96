"""Measurements: samples, the drift common to all programs, and figures corrected for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwnas.errors import TooNoisy
from hwnas.targets import Chosen
from hwnas.timing.protocol import Protocol, order_of

Names: TypeAlias = str | tuple[str, ...]  # a program, or the copies of one

FEW = 8  # with fewer programs their times cannot be told from the machine's drift
_BEYOND = 10  # runs that are expected above a high quantile
_WINDOW = 15  # visits, about a tenth of a second: other load on the machine changes within a pass
_POLISH = 8  # rounds; it converges after four or five
# On a busy machine less than a tenth of the visits may be quiet.
_QUIET = 0.05  # quantile of the visits' drift that is set to 1
_CALM = 1.1  # visits with a smaller drift are calm
_LEAST = 1 / 8  # smallest share of a program's visits to use, the calmest ones


def runs_for(q: float) -> int:
    """Timed runs that a high quantile needs: 200 for p95, 1,000 for p99.

    Ten runs are expected above the quantile. The distribution-free 95% interval of a quantile, between two order
    statistics, exists from 59 and 299 runs on (David and Nagaraja, "Order Statistics", 2003, section 7.1) if runs are
    independent; consecutive runs are not.
    """
    return math.ceil(round(_BEYOND / (1 - q), 6))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A measurement of several programs.

    Attributes:
        samples_ms: name of a program -> its samples, one list per pass.
        reference: the program whose times show the stability of the machine.
        protocol: the protocol.
        held: cores of the measurement; empty if the system cannot pin threads.
        order: pass and position of the program of each visit, in chronological order; None for complete consecutive
            passes in the orders of `order_of`.
    """

    samples_ms: Mapping[str, list[list[float]]]
    reference: str
    protocol: Protocol
    held: Chosen = field(default_factory=Chosen)
    order: tuple[tuple[int, int], ...] | None = None

    @cached_property
    def drift(self) -> npt.NDArray[np.float64]:
        """The slowdown of each visit relative to a quiet one (the 5% quantile): ``(passes, programs)``.

        A program's time in a visit is modelled as the program's time multiplied by the drift of all programs at that
        moment, and the two are separated by median polish (Tukey, "Exploratory Data Analysis", 1977, chapter 11). With
        few programs they cannot be separated, and there is no correction. A program's time comes from its calm visits,
        because a slowdown does not affect all programs equally.
        """
        programs = len(self.samples_ms)
        if programs < FEW:
            return np.ones((self.passes, programs))
        visits = np.log([[np.quantile(s, 0.25) for s in passes] for passes in self.samples_ms.values()]).T
        rows, columns = self._in_time.T
        around = np.zeros_like(visits)
        if not np.array_equal(self._in_time, self._whole_passes):
            around[rows, columns] = _common(visits[rows, columns], columns)
        for _ in range(_POLISH):
            calm = _calm(_over_quiet(around))
            own = np.nanmedian(np.where(calm, visits - around, np.nan), axis=0)
            in_time = (visits - own)[rows, columns]
            padded = np.pad(in_time, _WINDOW // 2, mode="reflect")
            medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, _WINDOW), axis=1)
            around[rows, columns] = medians
        return _over_quiet(around)

    @cached_property
    def _in_time(self) -> npt.NDArray[np.int64]:
        """Pass and position of each visit's program, in the order of the visits: ``(visits, 2)``."""
        return self._whole_passes if self.order is None else np.array(self.order, np.int64)

    @property
    def _whole_passes(self) -> npt.NDArray[np.int64]:
        """`_in_time` if all programs are open at once."""
        programs = len(self.samples_ms)
        return np.array([(p, i) for p in range(self.passes) for i in order_of(self.protocol, p, programs)], np.int64)

    def quantile_ms(self, name: Names, q: float, *, steady: bool = False) -> float:
        """A quantile of all samples of a program, in milliseconds.

        Args:
            name: of the program; several names are copies of one program, whose samples are pooled.
            q: between 0 and 1.
            steady: use only calm visits, corrected for drift, as if every visit had been quiet. A slowdown does not
                affect all programs equally, so visits with a large correction are less reliable: with a quarter of the
                visits quiet, ops were 1.6% off the quiet machine's times with all visits, and 0.2% with the calm ones.
        """
        if not steady:
            return float(np.quantile(self._all(name), q))
        columns = {own: column for column, own in enumerate(self.samples_ms)}
        return float(
            np.quantile(
                np.concatenate([_steady(self.samples_ms[own], self.drift[:, columns[own]]) for own in _names(name)]), q
            )
        )

    def _all(self, name: Names) -> npt.NDArray[np.float64]:
        return np.concatenate([visit for own in _names(name) for visit in self.samples_ms[own]])

    def runs(self, name: Names) -> int:
        """Number of timed runs of a program."""
        return len(self._all(name))

    def tail_ms(self, name: Names, q: float) -> float | None:
        """A high quantile of all samples of a program, in milliseconds; None if it has too few (`runs_for`).

        It is not corrected for drift, because it measures rare slow runs.
        """
        return self.quantile_ms(name, q) if self.runs(name) >= runs_for(q) else None

    def mean_ms(self, name: Names) -> float:
        """The mean of all samples of a program, in milliseconds."""
        return float(np.mean(self._all(name)))

    def p25_ms(self, name: Names) -> float:
        """The figure for predictions: the 25% quantile corrected for drift, in milliseconds."""
        return self.quantile_ms(name, 0.25, steady=True)

    @property
    def passes(self) -> int:
        """Number of passes."""
        return len(self.samples_ms[self.reference])

    @property
    def spread(self) -> float:
        """Variation of the reference's p25: (p90 - p10) / p50 over the passes."""
        low, middle, high = np.quantile(
            [np.quantile(s, 0.25) for s in self.samples_ms[self.reference]], [0.1, 0.5, 0.9]
        )
        return float((high - low) / middle)

    @cached_property
    def halves_ms(self) -> npt.NDArray[np.float64]:
        """`p25_ms` from the even sessions only and from the odd ones only: ``(2, programs)``."""
        parity = np.arange(self.passes) // self.protocol.session_passes % 2
        found = np.empty((2, len(self.samples_ms)))
        for half in (0, 1):
            rows = np.flatnonzero(parity == half)
            for column, passes in enumerate(self.samples_ms.values()):
                found[half, column] = np.quantile(_steady([passes[i] for i in rows], self.drift[rows, column]), 0.25)
        return found

    @cached_property
    def disagreement(self) -> float:
        """95% quantile over the programs of the relative difference between the even and the odd sessions' figures."""
        even, odd = self.halves_ms
        return float(np.quantile(np.abs(even - odd) / (even + odd) * 2, 0.95))

    @property
    def too_noisy(self) -> bool:
        """Whether the machine was too noisy for the figures to be trusted."""
        return self.disagreement > self.protocol.max_disagreement

    def require_steady(self) -> None:
        """Raise if the figures cannot be trusted.

        Raises:
            TooNoisy: even and odd sessions differ too much; the message says by how much.
        """
        if self.too_noisy:
            raise TooNoisy(
                f"the machine is too noisy: after {self.passes} passes, the times of even and odd sessions still "
                f"differ by {self.disagreement:.1%} (at most {self.protocol.max_disagreement:.0%} is accepted), and "
                f"the reference's time varied by {self.spread:.1%}. Nothing was written. Close other programs on the "
                "machine that is timed, and run the same command again"
            )

    def summary(self) -> dict[str, str | int | float]:
        """The measurement's record in a manifest."""
        return {
            **asdict(self.protocol),
            "passes": self.passes,
            "disagreement": round(self.disagreement, 5),
            "drift": round(float(self.drift.max() - 1), 5),
            "reference": self.reference,
            "reference_ms": round(self.p25_ms(self.reference), 6),
            "reference_spread": round(self.spread, 5),
            **({"cores": self.held.text} if self.held.cores else {}),
            **({"cores_note": self.held.note} if self.held.note else {}),
        }


def _over_quiet(around: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(around - np.quantile(around, _QUIET)), np.float64)


def _common(visits: npt.NDArray[np.float64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The common drift around each visit by least squares: the initial value of the polish for grouped measurements.

    If all programs are open at once, the median over the passes is a good initial value of a program's time. In groups
    it is not: with 3 sessions and a machine that slows down halfway, one program may have two slow visits and another
    only one, and medians are 22% off. So the mean of each window and the mean of each program are solved for jointly:
    groups differ in every session, which connects all programs.

    Args:
        visits: logarithms of the times, in the order of the visits, ``(visits,)``.
        columns: the program of each visit, ``(visits,)``.
    """
    windows = np.arange(len(visits)) // _WINDOW
    counts = np.zeros((windows[-1] + 1, columns.max() + 1))
    np.add.at(counts, (windows, columns), 1.0)
    share = counts / counts.sum(axis=1, keepdims=True)
    of_window = np.bincount(windows, visits) / counts.sum(axis=1)
    left = np.diag(counts.sum(axis=0)) - counts.T @ share
    own = np.linalg.lstsq(left, np.bincount(columns, visits) - counts.T @ of_window, rcond=1e-9)[0]
    return np.asarray((of_window - share @ own)[windows], np.float64)


def _calm(drift: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mask of the visits that are used for a program's time: ``(passes, ...) -> (passes, ...)``."""
    ranks = drift.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return np.asarray((drift < _CALM) | (ranks < len(drift) * _LEAST))


def _steady(passes: list[list[float]], drift: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The samples of a program's calm visits, corrected for drift."""
    return np.concatenate([np.divide(passes[i], drift[i]) for i in np.flatnonzero(_calm(drift))])


def _names(name: Names) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else name


def latencies_ms(measured: Measurement) -> npt.NDArray[np.float64]:
    """p25 of each program in milliseconds, in the order of the programs: ``(n,)``."""
    return np.array([measured.p25_ms(name) for name in measured.samples_ms])


def worse_ms(measured: Measurement) -> npt.NDArray[np.float64]:
    """The larger of the figures from even and from odd sessions for each program, in milliseconds: ``(n,)``.

    A bound applies to a new measurement, and half of the sessions is the smallest such measurement; in the combined
    figure, a part of the noise cancels out.
    """
    return np.asarray(measured.halves_ms.max(axis=0))
