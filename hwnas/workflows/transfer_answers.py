"""Answers of the transfer to a new target, and of comparisons with the user's measurements."""

from __future__ import annotations

from hwnas.files import Spec
from hwnas.workflows.answers import Answer

CONFIDENCE = 0.9  # of the upper bounds that the answers state


class MethodFigures(Spec):
    """A method of transfer on the sources that were left out.

    Attributes:
        method: its name.
        spearman: mean rank correlation over the sources.
        mape: mean absolute error, as a fraction.
    """

    method: str
    spearman: float
    mape: float


class TransferAnswer(Answer):
    """Result of `hwnas.workflows.transfer` and `hwnas.workflows.profile_few_shot`.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        sources: the targets whose tables were used.
        networks: measured networks of the new target.
        method: of the fit: among those that are equally good on the sources, it predicts the measurements best.
        methods: each method on the sources that were left out, the best one first.
        by_source: rank correlation of the best method for each source that was left out.
        noise: estimated noise of a measurement, as a fraction.
        upper_margin: margin of the upper bound at 90% confidence, as a fraction of the prediction.
        rows: of the table.
        table: the table's file.
    """

    target: str
    space: str
    sources: list[str]
    networks: int
    method: str
    methods: list[MethodFigures]
    by_source: dict[str, float]
    noise: float
    upper_margin: float
    rows: int
    table: str


class Decision(Spec):
    """The best network within a budget, by the present measurements.

    Attributes:
        budget_ms: the budget.
        arch: the network; None if no candidate is within it.
    """

    budget_ms: float
    arch: dict[str, int | str] | None


class NextAnswer(Answer):
    """Result of `hwnas.workflows.next_networks`.

    Attributes:
        space: name of the space.
        sources: the targets whose tables were used.
        networks: archs to measure, the first one first; empty if the decision is settled, or none is left.
        found: the best network within each budget.
        share: smallest share of the draws from the posterior in which the network found is the best.
        out: file that the networks were written to.
    """

    space: str
    sources: list[str]
    networks: list[dict[str, int | str]]
    found: list[Decision]
    share: float | None = None
    out: str | None = None


class NetworksAnswer(Answer):
    """Result of `hwnas.workflows.import_networks`.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        networks: used networks.
        failed: measurements that were left out.
        held_out_mape: cross-validated error, as a fraction.
        rows: of the table.
        table: the table's file.
    """

    target: str
    space: str
    networks: int
    failed: int
    held_out_mape: float
    rows: int
    table: str


class AgainstAnswer(Answer):
    """Result of `hwnas.workflows.validate_against`: predictions beside measurements in a file.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        networks: that were compared, each once.
        failed: measurements that are far off the predictions of the others, and were left out.
        mape: mean absolute error, as a fraction.
        bias: median of predicted over measured, minus 1.
        within_10pct: share with at most that error.
        spearman, kendall_tau: rank correlations.
        confidence: of the upper bound.
        below_upper: share of the measurements below it; None if the table has no bound.
        repeated, disagreement: networks that were measured several times, and the largest difference of two
            measurements.
    """

    target: str
    space: str
    networks: int
    failed: int = 0
    mape: float
    bias: float
    within_10pct: float
    spearman: float
    kendall_tau: float
    confidence: float
    below_upper: float | None
    repeated: int
    disagreement: float
