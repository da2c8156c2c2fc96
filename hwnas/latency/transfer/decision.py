"""Which network to measure next: the one that would change the decision most.

The decision is the best network within each budget. Latencies are drawn from the posterior; a network that is the best
in a draw is a contender. The next measurement reduces the variance of the contenders most, weighted by how often each
wins (as in arm elimination, Even-Dar, Mannor and Mansour, 2006, with the correlation of the posterior). When one
network wins nearly always, the decision no longer changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue
from hwnas.latency.transfer.fitting import Posterior
from hwnas.latency.transfer.known import Floats

_DRAWS = 200  # of the latencies
SETTLED = 0.9  # share of the draws in which one network wins, from which on nothing is asked


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The best networks by the present measurements, and what to measure next.

    Attributes:
        found: row of the best network within each budget; -1 if none is within it.
        share: smallest share, over the budgets, of the draws in which the network found wins.
        contenders: rows that win in a draw, with their shares of all draws and budgets.
        next: row to measure next; None if the decision is settled, or every candidate is measured.
    """

    found: tuple[int, ...]
    share: float
    contenders: dict[int, float]
    next: int | None


def decide(
    posterior: Posterior,
    terms: Floats,
    quality: Floats,
    budgets_ms: Sequence[float],
    *,
    measured: Sequence[int] = (),
    seed: int = 0,
) -> Decision:
    """The decision, and the measurement that would change it most.

    Args:
        posterior: the fit on the present measurements.
        terms: candidates, ``(n, terms)``.
        quality: larger is better, ``(n,)``; the number of MACs where there is no accuracy.
        budgets_ms: latency budgets, in milliseconds.
        measured: rows that were measured; they are not asked again.
        seed: of the draws.

    Raises:
        InvalidValue: there is no budget.
    """
    if not budgets_ms:
        raise InvalidValue("the next network depends on the decision: give at least one budget with --budget-ms")
    order = np.argsort(-quality, kind="stable")
    mean = posterior.predict(terms)
    root = _root(posterior)
    rng = np.random.default_rng(seed)
    draws = mean + rng.standard_normal((_DRAWS, len(root))) @ (terms @ root.T).T
    found, least = [], 1.0
    wins = np.zeros(len(terms))
    for budget in budgets_ms:
        best = _best(mean[None], order, budget)[0]
        winners = _best(draws, order, budget)
        found.append(int(best))
        least = min(least, float((winners == best).mean()))
        np.add.at(wins, winners[winners >= 0], 1.0)
    contenders = {int(row): float(wins[row] / (_DRAWS * len(budgets_ms))) for row in np.flatnonzero(wins)}
    if least >= SETTLED or not contenders or len(set(measured)) == len(terms):
        return Decision(found=tuple(found), share=least, contenders=contenders, next=None)
    rows = np.array(list(contenders))
    shared = posterior.covariance(terms, terms[rows]) ** 2 @ np.array(list(contenders.values()))
    gains = shared / (posterior.sd_ms(terms) ** 2 + (posterior.noise * mean) ** 2)
    gains[list(measured)] = -np.inf
    return Decision(found=tuple(found), share=least, contenders=contenders, next=int(gains.argmax()))


def _best(latencies_ms: Floats, order: npt.NDArray[np.intp], budget_ms: float) -> npt.NDArray[np.intp]:
    """The first network in an order that is within the budget, for each draw: ``(draws, n)`` -> ``(draws,)``."""
    within = latencies_ms[:, order] <= budget_ms
    first = within.argmax(axis=1)
    return np.where(within.any(axis=1), order[first], -1)


def _root(posterior: Posterior) -> Floats:
    """A square root of the posterior covariance of the costs of the terms: ``(rank, terms)``."""
    inside = np.eye(len(posterior.spread)) - posterior.seen.T @ posterior.inverse @ posterior.seen
    values, vectors = np.linalg.eigh((inside + inside.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T @ posterior.spread)
