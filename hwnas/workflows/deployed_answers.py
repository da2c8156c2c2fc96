"""Answers of `hwnas.workflows.sweep` and `bench`: networks in their runtimes."""

from __future__ import annotations

from pydantic import Field

from hwnas.deploy.manifest import ParityReport
from hwnas.files import Spec
from hwnas.workflows.answers import Answer


class SweptRecipe(Spec):
    """A network under one recipe.

    Attributes:
        target: ``device/recipe``.
        latency_ms, rounds_ms: p25 of a run in each round, and their mean.
        speeds: of the machine in each round, relative to its speed in the profile; None without a table.
        repeat: relative difference of the rounds.
        unsteady: whether the machine was too noisy within a round.
        too_noisy: whether the latency cannot be trusted, because of noise within a round or between rounds.
        predicted_ms: from the target's table; None without one.
        accuracy, lost: in the recipe's runtime, and its loss relative to torch, as fractions.
        refused: which limits of the recipe's ``[parity]`` the outputs exceed; None if they are within all.
        size_bytes: of the program's file.
        parity: outputs compared with those of the torch network.
    """

    target: str
    latency_ms: float
    rounds_ms: list[float]
    speeds: list[float | None] = Field(default=[])
    repeat: float
    unsteady: bool
    too_noisy: bool
    predicted_ms: float | None
    accuracy: float
    lost: float
    refused: str | None = None
    size_bytes: int
    parity: ParityReport


class SweepAnswer(Answer):
    """Result of `hwnas.workflows.sweep`.

    Attributes:
        arch: variable -> value.
        device: name of the device.
        max_drop: largest accepted accuracy loss, as a fraction.
        picked: the fastest target within it that is not refused; None without one.
        recipes: the fastest first.
        left_out: ``device/recipe`` -> why it cannot run the network.
        unpredicted: ``device/recipe`` -> why its table cannot be used.
    """

    arch: dict[str, int | str]
    device: str
    max_drop: float
    picked: str | None
    recipes: list[SweptRecipe]
    left_out: dict[str, str]
    unpredicted: dict[str, str]


class BenchAnswer(Answer):
    """Measured and predicted latency of a bundle (`hwnas.deploy.Benchmark`).

    Attributes:
        target: the measured device and the recipe.
        predicted_for: the target of the bundle.
        p95_ms, p99_ms: None with fewer than 200 and 1,000 timed runs.
        images_per_s: throughput of one run of `batch` images after the other.
        predicted_ms: at the machine's speed in the profile; None for a bundle without a prediction.
        speed: of the machine now, relative to its speed in the profile; None if the bundle has no reference programs.
        expected_ms, relative_error: the prediction at that speed, and measured over expected, minus 1; None without a
            prediction.
        judged_ms: the latency at the machine's speed in the profile, which budgets are of.
        over_budget: that latency over budget, minus 1; None without a budget.
        budgets: further budgets: ``p50``, ``p90``, ``p95`` and ``p99`` in milliseconds, ``images_per_s`` as a least
            throughput.
        over_budgets: name of each -> share by which it is missed; negative or 0 within it.
        saturates: why outputs for other images may differ on this host; None if they cannot.
    """

    target: str
    predicted_for: str
    measured_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float | None
    p99_ms: float | None
    runs: int
    images_per_s: float
    batch: int
    predicted_ms: float | None
    speed: float | None = None
    expected_ms: float | None = None
    relative_error: float | None
    budget_ms: float | None
    judged_ms: float
    over_budget: float | None
    budgets: dict[str, float] = Field(default={})
    over_budgets: dict[str, float] = Field(default={})
    spread: float
    too_noisy: bool
    cores: str
    cores_note: str
    saturates: str | None
