"""What was measured: samples, what slowed all programs for a moment, and the figures with that taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hwnas.errors import TooNoisy
from hwnas.targets import Chosen
from hwnas.timing.protocol import Protocol, order_of

_FEW = 8
_WINDOW = 15  # visits, about a tenth of a second: other load on the machine changes within a pass
_POLISH = 8  # rounds; it settles after four or five
# On a busy machine no more than a tenth of the visits may be quiet.
_QUIET = 0.05  # quantile of the visits' drift that counts as 1
_CALM = 1.1  # visits slowed by less tell a program's time
_LEAST = 1 / 8  # share of a program's visits, the calmest, that tell it at least


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured.

    Attributes:
        samples_ms: name of a program -> its samples, one list a pass.
        reference: the program whose times tell how steady the machine was.
        protocol: how it was taken.
        held: cores that it was taken on; none where the system cannot pin.
        order: pass and position of the program of each visit, as they followed each other; None for whole passes, one
            after the other, in the orders of `order_of`.
    """

    samples_ms: Mapping[str, list[list[float]]]
    reference: str
    protocol: Protocol
    held: Chosen = field(default_factory=Chosen)
    order: tuple[tuple[int, int], ...] | None = None

    @cached_property
    def drift(self) -> npt.NDArray[np.float64]:
        """What slowed each visit, over a quiet one (the 5% quantile): ``(passes, programs)``.

        A program's time in a visit is taken as its own times what slowed all programs in the moments around it, and the
        two are separated as in median polish (Tukey, "Exploratory Data Analysis", 1977, chapter 11). Of a few programs
        they cannot be separated, and no drift is taken out. Its own time is that of its calm visits: what slows all
        slows some more than others.
        """
        programs = len(self.samples_ms)
        if programs < _FEW:
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
        """What `_in_time` is where all programs are open together."""
        programs = len(self.samples_ms)
        return np.array([(p, i) for p in range(self.passes) for i in order_of(self.protocol, p, programs)], np.int64)

    def quantile_ms(self, name: str, q: float, *, steady: bool = False) -> float:
        """A quantile of all samples of a program, in milliseconds.

        Args:
            name: of the program.
            q: between 0 and 1.
            steady: of the calm visits alone, with the drift taken out, as if every one had been a quiet one. What slows
                all programs slows some more than others, so a visit tells the less, the more drift was taken out of it:
                with a quarter of the visits quiet, ops came out 1.6% off the quiet machine's times with all of them,
                0.2% with the calm ones.
        """
        passes = self.samples_ms[name]
        if steady:
            return _steady_quantile(passes, self.drift[:, list(self.samples_ms).index(name)], q)
        return float(np.quantile(np.concatenate(passes), q))

    def p25_ms(self, name: str) -> float:
        """The figure for prediction: the 25% quantile with the drift taken out, in milliseconds."""
        return self.quantile_ms(name, 0.25, steady=True)

    @property
    def passes(self) -> int:
        """Number of passes."""
        return len(self.samples_ms[self.reference])

    @property
    def spread(self) -> float:
        """How much the reference's p25 varied: (p90 - p10) / p50 over the passes."""
        low, middle, high = np.quantile(
            [np.quantile(s, 0.25) for s in self.samples_ms[self.reference]], [0.1, 0.5, 0.9]
        )
        return float((high - low) / middle)

    @cached_property
    def halves_ms(self) -> npt.NDArray[np.float64]:
        """What `p25_ms` would be with the even sessions alone and with the odd ones alone: ``(2, programs)``."""
        parity = np.arange(self.passes) // self.protocol.session_passes % 2
        found = np.empty((2, len(self.samples_ms)))
        for half in (0, 1):
            rows = np.flatnonzero(parity == half)
            for column, passes in enumerate(self.samples_ms.values()):
                found[half, column] = _steady_quantile([passes[i] for i in rows], self.drift[rows, column], 0.25)
        return found

    @cached_property
    def disagreement(self) -> float:
        """95% quantile over the programs of the relative difference between the even and the odd sessions' figures."""
        even, odd = self.halves_ms
        return float(np.quantile(np.abs(even - odd) / (even + odd) * 2, 0.95))

    @property
    def too_noisy(self) -> bool:
        """Whether the machine was too unsteady for the figures to be trusted."""
        return self.disagreement > self.protocol.max_disagreement

    def require_steady(self) -> None:
        """Refuse figures that cannot be trusted.

        Raises:
            TooNoisy: says by how much they differ.
        """
        if self.too_noisy:
            raise TooNoisy(
                f"the machine is too noisy: after {self.passes} passes, the times of even and odd sessions still "
                f"differ by {self.disagreement:.1%} (at most {self.protocol.max_disagreement:.0%} is accepted), and "
                f"the reference's time varied by {self.spread:.1%}. Nothing was written. Close what else runs on this "
                "machine and run the same command again"
            )

    def summary(self) -> dict[str, str | int | float]:
        """What a manifest records of it."""
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
    """What is common to the visits around each, by least squares: where the polish of a grouped measurement begins.

    With all programs open together, the median over the passes is a fair first guess of a program's own time. In groups
    it is not: with 3 sessions and a machine that slows down halfway, a program may be visited twice on the slow one and
    another once, and medians stay 22% off. The mean of a window and the mean of a program are solved for together:
    groups are others in every session, which connects all programs.

    Args:
        visits: logarithms of the times, in the order of the visits, ``(visits,)``.
        columns: the program of each, ``(visits,)``.
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
    """The visits that tell a program's time: ``(passes, ...) -> (passes, ...)``."""
    ranks = drift.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return np.asarray((drift < _CALM) | (ranks < len(drift) * _LEAST))


def _steady_quantile(passes: list[list[float]], drift: npt.NDArray[np.float64], q: float) -> float:
    return float(np.quantile(np.concatenate([np.divide(passes[i], drift[i]) for i in np.flatnonzero(_calm(drift))]), q))


def latencies_ms(measured: Measurement) -> npt.NDArray[np.float64]:
    """p25 of each program, in milliseconds and in the order in which they were given: ``(n,)``."""
    return np.array([measured.p25_ms(name) for name in measured.samples_ms])


def worse_ms(measured: Measurement) -> npt.NDArray[np.float64]:
    """The larger of what the even and the odd sessions say of each program, in milliseconds: ``(n,)``.

    A bound is on what another measurement will say, and half of the sessions is the least of another measurement that
    there is; in the common figure, a part of the noise has cancelled out.
    """
    return np.asarray(measured.halves_ms.max(axis=0))
