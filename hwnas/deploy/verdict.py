"""Whether a measured latency is within its budget."""

from __future__ import annotations

NOISY = ", but the machine was too noisy for the figure to be trusted"


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
