"""Whether a measured latency, and other figures of the measurement, are within their budgets, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

THROUGHPUT = "images_per_s"  # its budget is the least value; those of quantiles are the largest ones
NOISY = ", but the machine was too noisy for the figure to be trusted"


def judged_ms(measured_ms: float, speed: float | None) -> float:
    """A latency at the machine's speed in the profile, in milliseconds, which budgets are of.

    Budgets are compared with predictions in a search; other load of today must not decide.

    Args:
        measured_ms: measured latency, in milliseconds.
        speed: of the machine during the measurement, relative to the profile; None if unknown.
    """
    return measured_ms * (speed or 1.0)


def over_budget(measured_ms: float, budget_ms: float) -> float:
    """Share by which a latency exceeds its budget (0.1: 10% over); negative or 0 within it."""
    return measured_ms / budget_ms - 1


def share_words(over: float) -> str:
    """The size of a share, at least with tenths of a percent: above the budget must not read as 0% above it."""
    return f"{abs(over):.0%}" if abs(over) >= 0.01 else f"{abs(over):.1%}"


def verdict(measured_ms: float, budget_ms: float, *, too_noisy: bool = False) -> str:
    """Whether a latency is within its budget, in words: ``within the budget of 0.8 ms, 12% below it``.

    Args:
        measured_ms: latency of the bundle (25% quantile) at the machine's speed in the profile, in milliseconds.
        budget_ms: budget, in milliseconds.
        too_noisy: the machine was too noisy for the measurement to be trusted.
    """
    over = over_budget(measured_ms, budget_ms)
    share = share_words(over)
    found = (
        f"OVER THE BUDGET of {budget_ms:.4g} ms by {share}"
        if over > 0
        else f"within the budget of {budget_ms:.4g} ms, {share} below it"
    )
    return found + (NOISY if too_noisy else "")


def budget_words(name: str, budget: float, over: float, *, too_noisy: bool = False) -> str:
    """Whether a figure other than p25 is within its budget: ``p95 within its budget of 1.2 ms, 12% below it``.

    Args:
        name: a quantile, or `THROUGHPUT`.
        budget: in milliseconds, or images per second.
        over: share by which the budget is missed; negative or 0 within it.
        too_noisy: the machine was too noisy for the measurement to be trusted.
    """
    share, unit = share_words(over), "" if name == THROUGHPUT else " ms"
    side = "above" if name == THROUGHPUT else "below"
    found = (
        f"{name} MISSES ITS BUDGET of {budget:.4g}{unit} by {share}"
        if over > 0
        else f"{name} within its budget of {budget:.4g}{unit}, {share} {side} it"
    )
    return found + (NOISY if too_noisy else "")


def remedy(measured_ms: float, over: Mapping[str, float]) -> str | None:
    """What helps a network that misses budgets of figures other than p25, in words; None if it misses none.

    Args:
        measured_ms: its p25 at the machine's speed in the profile, in milliseconds.
        over: name of a figure -> share by which its budget is missed.
    """
    # p25 at which the figure would be on its budget, if their ratio stays as it is.
    needed = [
        measured_ms * (1 - share if name == THROUGHPUT else 1 / (1 + share))
        for name, share in over.items()
        if share > 0
    ]
    if not needed:
        return None
    step = 10.0 ** (math.floor(math.log10(min(needed))) - 2)  # rounded down to three digits
    return (
        f"the search limits p25, which is {measured_ms:.4g} ms; if its ratio to the other figures stays, a network of "
        f"the budget {math.floor(min(needed) / step) * step:.3g}ms meets them. Other load on the machine raises high "
        "quantiles most"
    )
