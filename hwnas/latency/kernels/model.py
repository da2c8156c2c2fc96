"""Latencies of whole networks as sums over their kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.stats import kendalltau

from hwnas.latency.kernels.bound import Bound, fitted_bound, spread_of, spreads_of
from hwnas.latency.kernels.kernel import Kernel, parse_kernel
from hwnas.latency.kernels.regression import Floats, KindRegression, of_logarithms
from hwnas.latency.kernels.table import KernelNetwork, KernelRow, KernelTable, KernelValidation

FOLDS = 5
HOW = ("measured", "estimated", "unknown")
_KINDS_LEFT_OUT = 12  # those with most rows: each costs a fit of all others
_NO_OTHER_KIND = 10.0  # factor of unknown kernels if the table has one kind only
_CONTEXT = 20  # fewer networks do not support the context terms
_FREE_MS = 1e-6  # a kernel without shapes, such as one without inputs

Whole: TypeAlias = tuple[Sequence[Kernel], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLatency:
    """The predicted latency of a kernel.

    Attributes:
        kernel: the kernel.
        ms: latency.
        how: ``measured``, this kernel is in the table; ``estimated``, from kernels of its kind; or ``unknown``, from
            kernels of all other kinds.
    """

    kernel: Kernel
    ms: float
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLatency:
    """The predicted latency of a network.

    Attributes:
        ms: latency.
        upper_ms: upper bound at `confidence`; None if the table has too few networks.
        kernels: by the runtime's order; their latencies and the context sum to `ms`.
        context_ms: latency that is in no kernel.
        confidence: of the bound.
    """

    ms: float
    upper_ms: float | None
    kernels: tuple[KernelLatency, ...]
    context_ms: float
    confidence: float


class KernelModel:
    """Predicts networks from a table of kernels.

    Args:
        rows: the kernels.
        networks: kernels and latency in milliseconds of the networks that the context is fitted on.
        bound: of its predictions; without one, they have no upper bound.
        kind_spreads, unknown_factor: as in `KernelTable`.
    """

    def __init__(
        self,
        rows: Sequence[KernelRow],
        networks: Sequence[Whole] = (),
        *,
        bound: Bound | None = None,
        kind_spreads: Mapping[str, float] | None = None,
        unknown_factor: float = 1.0,
    ) -> None:
        self._kernels = [parse_kernel(row.kernel) for row in rows]
        self._known = {kernel: row.ms for kernel, row in zip(self._kernels, rows, strict=True)}
        self._bound, self._kind_spreads, self._unknown_factor = bound, kind_spreads or {}, unknown_factor
        self._ms = np.array([row.ms for row in rows])
        # Long kernels decide a network's latency, and short ones are measured less exactly.
        self._weights = np.sqrt([row.count for row in rows]) * self._ms**0.5
        self._rows: dict[str | None, list[int]] = {None: [*range(len(rows))]}
        for index, kernel in enumerate(self._kernels):
            self._rows.setdefault(kernel.kind, []).append(index)
        self._fitted: dict[str | None, KindRegression] = {}
        self._scale, self._each_ms = 1.0, 0.0
        if len(networks) >= _CONTEXT:
            self._scale, self._each_ms = self._fitted_context(networks)

    def _of(self, kind: str) -> KindRegression:
        """The regression of a kind; of a kind without rows, that of all kernels."""
        known = kind if kind in self._rows else None
        if known not in self._fitted:
            own = self._rows[known]
            kernels, traits = [self._kernels[i] for i in own], known is not None
            self._fitted[known] = KindRegression(kernels, self._ms[own], self._weights[own], traits=traits)
        return self._fitted[known]

    def _fitted_context(self, networks: Sequence[Whole]) -> tuple[float, float]:
        """The factor of the sum of kernels and the time between two of them, by least squares of logarithms."""
        counts = np.array([len(kernels) for kernels, _ in networks])
        estimated = self.estimated([kernel for kernels, _ in networks for kernel in kernels])
        sums = np.add.reduceat(estimated, np.cumsum(counts) - counts)
        measured = np.array([ms for _, ms in networks])
        terms = np.stack([sums, counts], axis=1) / measured[:, None]
        found = of_logarithms(
            terms, lambda rows, ones: np.asarray(np.linalg.lstsq(rows, ones, rcond=None)[0], np.float64)
        )
        return float(found[0]), float(found[1])

    def estimated(self, kernels: Sequence[Kernel]) -> Floats:
        """Latencies by regression, whether or not the kernels are in the table: ``(kernels,)`` in milliseconds."""
        found = np.full(len(kernels), _FREE_MS)
        kinds: dict[str, list[int]] = {}
        for index, kernel in enumerate(kernels):
            if kernel.inputs or kernel.outputs:
                kinds.setdefault(kernel.kind, []).append(index)
        for kind, own in kinds.items():
            found[own] = self._of(kind).predict([kernels[i] for i in own])
        return found

    def network(self, kernels: Sequence[Kernel], *, confidence: float = 0.95) -> NetworkLatency:
        """The latency of a network with these kernels.

        The upper bound (`hwnas.latency.kernels.bound`) comes from the errors of the table's networks, each predicted
        without its own kernels, and all kernels count as estimated. Kernels of unknown kinds widen it.
        """
        [found] = self.networks([kernels], confidence=confidence)
        return found

    def networks(self, each: Sequence[Sequence[Kernel]], *, confidence: float = 0.95) -> list[NetworkLatency]:
        """The latencies of several networks (`network`), whose kernels are estimated at once."""
        estimated = self.estimated([kernel for kernels in each for kernel in kernels])
        ends = np.cumsum([len(kernels) for kernels in each])
        return [
            self._summed(kernels, estimated[end - len(kernels) : end], confidence)
            for kernels, end in zip(each, ends.tolist(), strict=True)
        ]

    def _summed(self, kernels: Sequence[Kernel], estimated: Floats, confidence: float) -> NetworkLatency:
        """The latency of a network from estimates of its kernels."""
        found, unknown_ms = [], 0.0
        for kernel, guess in zip(kernels, estimated, strict=True):
            ms, how = float(guess), "estimated"
            if kernel in self._known:
                ms, how = self._known[kernel], "measured"
            elif kernel.kind not in self._rows:
                how, unknown_ms = "unknown", unknown_ms + ms
            found.append(KernelLatency(kernel=kernel, ms=ms, how=how))
        total = sum(one.ms for one in found)
        ms = max(self._scale * total + self._each_ms * len(kernels), 0.5 * total)
        upper = None
        if self._bound is not None:
            spread = spread_of(kernels, [one.ms for one in found], self._kind_spreads)
            if (over := self._bound.over(spread, confidence)) is not None:
                upper = ms * over + unknown_ms * max(0.0, self._unknown_factor - 1)
        return NetworkLatency(ms=ms, upper_ms=upper, kernels=tuple(found), context_ms=ms - total, confidence=confidence)


def load_kernels(table: KernelTable) -> KernelModel:
    """The model of a table."""
    kernels = [parse_kernel(row.kernel) for row in table.rows]
    networks = [([kernels[i] for i in network.kernels], network.ms) for network in table.networks]
    bound = fitted_bound(table.errors, table.spreads or [0.0] * len(table.errors))
    return KernelModel(
        table.rows, networks, bound=bound, kind_spreads=table.kind_spreads, unknown_factor=table.unknown_factor
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """How well networks are predicted without their own kernels; as in `KernelTable`."""

    errors: list[float]
    spreads: list[float]
    kind_spreads: dict[str, float]
    validation: KernelValidation


def judged(rows: Sequence[KernelRow], networks: Sequence[KernelNetwork]) -> Judgement:
    """The errors of networks that are predicted without their own kernels, in `FOLDS` folds.

    A kernel is left out if it occurs in a network of the fold: so it is estimated, as in a network that was never seen.
    """
    kernels = [parse_kernel(row.kernel) for row in rows]
    whole = [([kernels[i] for i in network.kernels], network.ms) for network in networks]
    found: dict[int, NetworkLatency] = {}
    for fold in range(min(FOLDS, len(networks))):
        own = range(fold, len(networks), FOLDS)
        hidden = {index for i in own for index in networks[i].kernels}
        kept = [row for index, row in enumerate(rows) if index not in hidden]
        model = KernelModel(kept or rows, [one for i, one in enumerate(whole) if i not in own])
        found.update(zip(own, model.networks([whole[i][0] for i in own]), strict=True))
    answers = [found[i] for i in range(len(networks))]
    measured, predicted = np.array([network.ms for network in networks]), np.array([one.ms for one in answers])
    # A kernel of several folds was predicted in each of them.
    parts = {(i % FOLDS, part.kernel): part.ms for i, one in enumerate(answers) for part in one.kernels}
    row_ms = {kernel: row.ms for kernel, row in zip(kernels, rows, strict=True)}
    hidden_kernels = [kernel for _, kernel in parts]
    kind_spreads = spreads_of(
        hidden_kernels, np.array([row_ms[kernel] for kernel in hidden_kernels]), np.array([*parts.values()])
    )
    off = np.abs(predicted / measured - 1)
    tau = float(kendalltau(predicted, measured).statistic) if len(networks) > 1 else 1.0
    return Judgement(
        errors=(measured / predicted - 1).tolist(),
        spreads=[
            spread_of(one_kernels, [part.ms for part in one.kernels], kind_spreads)
            for (one_kernels, _), one in zip(whole, answers, strict=True)
        ],
        kind_spreads=kind_spreads,
        validation=KernelValidation(
            networks=len(networks),
            mape=float(off.mean()),
            within_10pct=float((off <= 0.1).mean()),
            kendall_tau=tau,
        ),
    )


def unknown_factor(rows: Sequence[KernelRow]) -> float:
    """How much longer kernels take than predicted from the kernels of other kinds: a quantile over the large kinds."""
    by_kind: dict[str, list[KernelRow]] = {}
    for row in rows:
        by_kind.setdefault(parse_kernel(row.kernel).kind, []).append(row)
    if len(by_kind) < 2:
        return _NO_OTHER_KIND
    ratios: list[float] = []
    for kind, own in sorted(by_kind.items(), key=lambda entry: -len(entry[1]))[:_KINDS_LEFT_OUT]:
        others = [row for name, some in by_kind.items() if name != kind for row in some]
        guess = KernelModel(others).estimated([parse_kernel(row.kernel) for row in own])
        ratios.append(float(np.quantile([row.ms for row in own] / guess, 0.9)))
    return max(1.0, float(np.quantile(ratios, 0.95)))
