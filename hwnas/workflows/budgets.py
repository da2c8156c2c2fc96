"""Budgets of a re-benchmark: the latency that predictions refer to, its high quantiles, and throughput."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwnas.deploy.benchmark import Benchmark
from hwnas.deploy.verdict import THROUGHPUT
from hwnas.errors import InvalidValue, UnknownName
from hwnas.search.objectives import check_budget_text
from hwnas.timing import runs_for

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def parse_budgets(texts: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """The latency budget in milliseconds, None without one, and the budgets of other figures.

    Args:
        texts: ``0.8ms``; ``p95=1.2ms``, likewise for the other `QUANTILES`; ``images_per_s=500``.

    Raises:
        UnknownName: no such figure.
        InvalidValue: not a latency or a positive number, or two budgets of one figure.
    """
    latency_ms, budgets = None, dict[str, float]()
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip()
        if sign and name not in (*QUANTILES, THROUGHPUT):
            raise UnknownName("figure of a budget", name, (*QUANTILES, THROUGHPUT))
        if name in budgets or (not sign and latency_ms is not None):
            raise InvalidValue(f"there are two budgets of {name if sign else 'the latency'}; give one")
        number, unit = check_budget_text(value if sign else text)
        if unit not in ("", *([] if name == THROUGHPUT else ["ms"])):
            raise InvalidValue(
                f"{text!r} must be a number of images per second, such as {THROUGHPUT}=500"
                if name == THROUGHPUT
                else f"the budget of a bundle must be a latency in milliseconds, such as 0.8ms; not {text!r}"
            )
        if sign:
            budgets[name] = number
        else:
            latency_ms = number
    return latency_ms, budgets


def runs_of(budgets: Mapping[str, float]) -> int:
    """Least number of timed runs for the quantiles that have a budget; 0 without one above p90."""
    return max((runs_for(QUANTILES[name]) for name in budgets if QUANTILES.get(name, 0) > 0.9), default=0)


def over_budgets(result: Benchmark, budgets: Mapping[str, float]) -> dict[str, float]:
    """Name of each budget -> share by which the measurement misses it (0.1: 10%); negative or 0 within it."""
    found = {
        "p50": result.p50_ms,
        "p90": result.p90_ms,
        "p95": result.p95_ms,
        "p99": result.p99_ms,
        THROUGHPUT: result.images_per_s,
    }
    over = {}
    for name, budget in budgets.items():
        value = found[name]
        assert value is not None, name  # there are `runs_of` runs
        over[name] = 1 - value / budget if name == THROUGHPUT else value / budget - 1
    return over
