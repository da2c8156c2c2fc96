"""What a search is asked: maximise predicted accuracy under a latency budget."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass
from functools import cached_property

from hwnas.errors import InfeasibleBudget, InvalidValue
from hwnas.latency import LatencyModel
from hwnas.search.decompose import Decomposition
from hwnas.spaces import Arch, Codes, SlotSum, Space

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network that a search found.

    Attributes:
        arch: the network.
        predicted_accuracy: by the accuracy model, as a fraction.
        predicted_ms: by the latency model.
    """

    arch: Arch
    predicted_accuracy: float
    predicted_ms: float


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Maximise accuracy where the latency stays below the budget.

    Attributes:
        space: the networks to choose from.
        accuracy: predicted accuracy from codes.
        latency: the latency model.
        budget_ms: the budget, above 0.
        confidence: with which a measurement shall keep the budget; the search holds `LatencyModel.predict_upper` at
            this confidence below it. None: the prediction itself is held below it, without a margin.
    """

    space: Space
    accuracy: SlotSum
    latency: LatencyModel
    budget_ms: float
    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        if not self.budget_ms > 0:
            raise InvalidValue(f"a latency budget is a positive number of milliseconds, not {self.budget_ms}")

    @cached_property
    def limit_ms(self) -> float:
        """The prediction that a network may have at most."""
        return _limit_ms(self.budget_ms, _margin(self.latency, self.confidence))

    @cached_property
    def decomposition(self) -> Decomposition:
        """The space taken apart for exact work on accuracy and latency together."""
        return Decomposition.of(self.space, self.accuracy, self.latency.total)

    def candidates(self, codes: Codes) -> list[Candidate]:
        """Codes ``(n, variables)`` -> candidates, the most accurate by prediction first."""
        accuracy, latency = self.accuracy(codes), self.latency.predict(codes)
        archs = self.space.decode(codes)
        found = [
            Candidate(arch=arch, predicted_accuracy=float(a), predicted_ms=float(ms))
            for arch, a, ms in zip(archs, accuracy, latency, strict=True)
        ]
        return sorted(found, key=lambda c: -c.predicted_accuracy)


def check_feasible(latency: LatencyModel, budget_ms: float, confidence: float | None) -> None:
    """Check that some network keeps a budget; the latency model alone knows.

    Raises:
        InfeasibleBudget: none does; names the fastest network and its latency.
        TableError: a confidence is given, but the model has no margin: its table was imported.
    """
    space, margin = latency.space, _margin(latency, confidence)
    codes, fastest_ms = Decomposition.of(space, latency.total).minimum(latency.total)
    if fastest_ms > _limit_ms(budget_ms, margin):
        [arch] = space.decode(codes[None])
        # A little more than it is: the figure is shown in few digits, and must do when it is asked for.
        needed = fastest_ms * (1 + margin) * 1.001
        held = "without a margin" if confidence is None else f"at {confidence:.0%} confidence"
        values = ", ".join(f"{name}={value}" for name, value in space.describe(arch).items())
        raise InfeasibleBudget(
            f"no network of {space.name} keeps {budget_ms:.4g} ms on {latency.target}. The fastest "
            f"is predicted at {fastest_ms:.4g} ms and needs a budget of {needed:.4g} ms "
            f"({held}): {values}",
            budget_ms=budget_ms,
            fastest_ms=fastest_ms,
        )


def _margin(latency: LatencyModel, confidence: float | None) -> float:
    """Share of the prediction that is kept free for its error."""
    return 0.0 if confidence is None else latency.margin(confidence)


def _limit_ms(budget_ms: float, margin: float) -> float:
    """The prediction that a network may have at most.

    Sums of the same terms in another order differ in their last digits; a little room (a millionth of a nanosecond in
    a millisecond) keeps a network that meets the budget exactly from falling out for that.
    """
    return budget_ms / (1 + margin) * (1 + 1e-12)


def check_budget_text(text: str) -> tuple[float, str]:
    """The number and the unit (``ms`` or ``%``) of a budget.

    Raises:
        InvalidValue: not a positive, finite number in one of the forms of `parse_budget`.
    """
    match = re.fullmatch(r"\s*([-+0-9.eE]+)\s*(ms|%)?\s*", text)
    try:
        value = float(match[1]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value) or value <= 0:
        raise InvalidValue(
            f"a latency budget is a positive number of milliseconds (0.8 or 0.8ms) or a share of the largest network's "
            f"latency (50%), not {text!r}"
        )
    return value, match[2] or "ms"


def parse_budget(text: str, model: LatencyModel) -> float:
    """A budget in milliseconds from text: ``0.8`` or ``0.8ms``, or ``50%`` of the largest network's prediction.

    Raises:
        InvalidValue: not a positive, finite number in one of these forms.
    """
    value, unit = check_budget_text(text)
    [largest_ms] = model.predict(model.space.encode([model.space.largest]))
    budget_ms = value / 100 * float(largest_ms) if unit == "%" else value
    if budget_ms > largest_ms:
        log.warning(
            "the budget of %.4g ms binds nothing: the largest network is predicted at %.4g ms", budget_ms, largest_ms
        )
    return budget_ms
