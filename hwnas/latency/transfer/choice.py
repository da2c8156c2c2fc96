"""Leave-one-device-out on the sources: which method, which scales, and how large the errors are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwnas.errors import InvalidValue
from hwnas.latency.transfer.design import DESIGN, Rows, choose
from hwnas.latency.transfer.fitting import Posterior, Scales, fit, fit_many
from hwnas.latency.transfer.known import Floats, Known, Measured, Source
from hwnas.latency.transfer.methods import METHODS, Method

_EQUAL = 0.005  # difference of rank correlations that the draws of a source do not tell apart
_DRAWS = 3  # of measured networks for each source
_JUDGED = 400  # networks that a fit is judged on; ranks of more differ by less than those of another draw
_FEWEST = 5  # networks beside the measured ones, without which ranks say nothing; the shipped tables have 16 in all
Draw = tuple[Source, Known, Rows, Rows]
"""A source that is left out, the others, and rows of its networks that are measured and that are judged."""
_LEAST = 3  # measurements of a source that is left out


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of a method with scales over the sources that were left out.

    Attributes:
        method, scales: what was tried.
        rank: mean Spearman correlation over the sources.
        mape: mean absolute error, as a fraction of the latency.
        by_source: name of a source -> its Spearman correlation.
    """

    method: Method
    scales: Scales
    rank: float
    mape: float
    by_source: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What leave-one-device-out chose.

    Attributes:
        trials: the best trial of each method, the best first.
        shortlist: the trials whose rank correlation is at most 0.005 below the highest, the best first.
        scores: relative errors (measured over predicted, minus 1) of the best trial on networks that it did not
            measure, as multiples of the noise that the fit estimated: one array for each source.
    """

    trials: tuple[Trial, ...]
    shortlist: tuple[Trial, ...]
    scores: tuple[Floats, ...]

    @property
    def best(self) -> Trial:
        """The trial with the highest rank correlation."""
        return self.shortlist[0]

    def fit(self, known: Known, measured: Measured) -> tuple[Posterior, Trial]:
        """The fit of a new target, with the trial of the shortlist that predicts its measurements best.

        On the sources, the trials of the shortlist are equally good; on the target they are not: a runtime that drops
        ops whose output is not read needs other scales than the sources do.
        """
        return _settled(self.shortlist, known, measured)

    def margins(self, noise: float, count: int) -> list[float]:
        """Relative errors that a new target is expected to have, ascending: for `hwnas.latency.manifest.Fit.scores`.

        They are quantiles of the scores, with the same weight for each source, times the target's noise: conformal
        prediction from pooled groups (Dunn, Wasserman and Ramdas, "Distribution-Free Prediction Sets for Two-Layer
        Hierarchical Models", 2023, section 3.1), which holds for many groups. For S sources the level q is raised by
        q(1 - q) / (S + 1). The scores are of fits on as many measurements as the target has, so few widen the bound.

        Args:
            noise: of the target's fit.
            count: how many figures to return.
        """
        levels = (np.arange(count) + 1) / (count + 1)
        sources = len(self.scores)
        pooled = np.concatenate([np.quantile(scores, np.linspace(0, 1, 201)) for scores in self.scores])
        widened = np.minimum(levels + (1 - levels) * levels / (sources + 1), 1.0)
        return [float(noise * value) for value in np.quantile(pooled, widened)]


def choose_method(
    known: Known,
    count: int,
    *,
    methods: Sequence[str] | None = None,
    design: str = DESIGN,
    seed: int = 0,
) -> Choice:
    """Choose a method and its scales: leave each device out, predict it from the others and `count` of its networks.

    Args:
        known: sources of at least two devices, at least one of which with measured networks.
        count: number of measurements of the new target; a source with few measured networks is judged with fewer.
        methods: names of `hwnas.latency.transfer.methods.METHODS`; all if None.
        design: chooses the networks of each source (`hwnas.latency.transfer.design`).
        seed: of the draws.

    Raises:
        InvalidValue: no source can be left out.
    """
    draws = _draws(judges(known), known, count, design, seed)
    tried: dict[tuple[str, Scales], list[tuple[str, float, float]]] = {}
    for source, others, rows, rest in draws:
        assert source.measured is not None
        seen, unseen = source.measured.at(rows), source.measured.at(rest)
        for name in methods or METHODS:
            method = METHODS[name]
            predicted = fit_many(method.prior(others, seen), method.scales, seen).cost_ms @ unseen.terms.T
            for scales, row in zip(method.scales, predicted, strict=True):
                mape = float(np.abs(row / unseen.latency_ms - 1).mean())
                tried.setdefault((name, scales), []).append((source.name, spearman(row, unseen.latency_ms), mape))
    trials = sorted((_trial(METHODS[name], scales, found) for (name, scales), found in tried.items()), key=_worth)
    firsts = {trial.method.name: trial for trial in reversed(trials)}
    shortlist = tuple(trial for trial in trials if trial.rank >= trials[0].rank - _EQUAL)
    return Choice(
        trials=tuple(sorted(firsts.values(), key=_worth)),
        shortlist=shortlist,
        scores=_scores(shortlist, draws),
    )


def _settled(shortlist: Sequence[Trial], known: Known, measured: Measured) -> tuple[Posterior, Trial]:
    evidence: list[tuple[float, Trial]] = []
    for name in dict.fromkeys(trial.method.name for trial in shortlist):
        own = [trial for trial in shortlist if trial.method.name == name]
        found = fit_many(own[0].method.prior(known, measured), [trial.scales for trial in own], measured)
        evidence += zip(found.evidence.tolist(), own, strict=True)
    _, trial = max(evidence, key=lambda one: one[0])
    return fit(trial.method.prior(known, measured), trial.scales, measured), trial


def judges(known: Known, *, option: str = "--from") -> list[Source]:
    """Sources that can be left out.

    Args:
        known: the sources.
        option: of the command line that names their tables, for messages.

    Raises:
        InvalidValue: there are none.
    """
    if len(known.devices) < 2:
        raise InvalidValue(
            f"a transfer is checked by leaving a source out, but {known.devices[0]} is the only one; "
            f"add tables with {option}"
        )
    found = [s for s in known.sources if s.measured and len(s.measured.latency_ms) >= _LEAST + _FEWEST]
    if not found:
        most = max(len(s.measured.latency_ms) if s.measured else 0 for s in known.sources)
        raise InvalidValue(
            f"a transfer is checked on sources with at least {_LEAST + _FEWEST} measured networks, but the "
            f"most that one of these has is {most}. Add tables that `hwnas profile` measured with {option}"
        )
    return found


def _draws(left_out: Sequence[Source], known: Known, count: int, design: str, seed: int) -> list[Draw]:
    found = []
    for index, source in enumerate(left_out):
        others = known.without(source.device)
        assert source.measured is not None
        for draw in range(_DRAWS):
            seen = min(count, len(source.measured.latency_ms) - _FEWEST)
            rows = choose(others, source.measured.terms, seen, design=design, seed=(seed, index, draw))
            rest = np.setdiff1d(np.arange(len(source.measured.latency_ms)), rows)
            rest = np.random.default_rng((seed, index, draw)).permutation(rest)[:_JUDGED]
            found.append((source, others, rows, rest))
    return found


def _trial(method: Method, scales: Scales, found: Sequence[tuple[str, float, float]]) -> Trial:
    names = dict.fromkeys(name for name, _, _ in found)
    by_source = {name: float(np.mean([rank for of, rank, _ in found if of == name])) for name in names}
    mape = float(np.mean([mape for _, _, mape in found]))
    return Trial(
        method=method, scales=scales, rank=float(np.mean(list(by_source.values()))), mape=mape, by_source=by_source
    )


def _worth(trial: Trial) -> float:
    return -trial.rank


def _scores(shortlist: Sequence[Trial], draws: Sequence[Draw]) -> tuple[Floats, ...]:
    found: dict[str, list[Floats]] = {}
    for source, others, rows, rest in draws:
        assert source.measured is not None
        seen, unseen = source.measured.at(rows), source.measured.at(rest)
        posterior, _ = _settled(shortlist, others, seen)
        error = unseen.latency_ms / posterior.predict(unseen.terms) - 1
        found.setdefault(source.name, []).append(error / posterior.noise)
    return tuple(np.sort(np.concatenate(arrays)) for arrays in found.values())


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation of two arrays ``(n,)``; 0 if one of them is constant."""
    ranks = [_ranks(values) for values in (a, b)]
    sizes = [float(np.sqrt(((rank - rank.mean()) ** 2).sum())) for rank in ranks]
    if min(sizes) == 0:
        return 0.0
    return float((ranks[0] - ranks[0].mean()) @ (ranks[1] - ranks[1].mean()) / math.prod(sizes))


def _ranks(values: Floats) -> Floats:
    """Mean ranks, from 1."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place])
