"""Answers about a user's model."""

from __future__ import annotations

from hwnas.deploy.model_bench import ModelTiming
from hwnas.latency.kernels.table import KernelValidation
from hwnas.report.model_figures import Closeness, ModelFacts, Prediction
from hwnas.workflows.answers import Answer


class ModelBenchAnswer(Answer):
    """Result of `hwnas.workflows.bench_model`.

    Attributes:
        model: the model.
        targets: one entry per target.
        left_out: ``device/recipe`` -> why it cannot run the model.
    """

    model: ModelFacts
    targets: list[ModelTiming]
    left_out: dict[str, str]


class SweptModel(Closeness):
    """A model under one recipe.

    Attributes:
        timing: its latency.
        quantized: whether it is an int8 program.
    """

    timing: ModelTiming
    quantized: bool


class ModelSweepAnswer(Answer):
    """Result of `hwnas.workflows.sweep_model`.

    Attributes:
        model: the model.
        device: name of the device.
        max_drop: largest accepted loss of the metric; only with labels.
        picked: the fastest target that is not refused; None without one.
        recipes: the fastest first.
        left_out: ``device/recipe`` -> why it cannot run the model.
    """

    model: ModelFacts
    device: str
    max_drop: float
    picked: str | None
    recipes: list[SweptModel]
    left_out: dict[str, str]


class KernelsAnswer(Answer):
    """Result of `hwnas.workflows.profile_kernels`.

    Attributes:
        target: ``device/recipe``.
        kernels: number of measured kernels.
        kinds: their kinds.
        networks: number of networks in which they were measured.
        profiler_ms: what the runtime's profiler added to each layer; it is subtracted.
        validation: predictions of these networks, each without its own kernels.
        table: the written file.
    """

    target: str
    kernels: int
    kinds: list[str]
    networks: int
    profiler_ms: float
    validation: KernelValidation
    table: str


class PredictAnswer(Prediction, Answer):
    """Result of `hwnas.workflows.predict`.

    Attributes:
        model: the model.
        notes: caveats, as sentences.
    """

    model: ModelFacts
    notes: list[str]


class KernelsValidationAnswer(Answer):
    """Result of `hwnas.workflows.validate_kernels`.

    Attributes:
        target: ``device/recipe``.
        networks: number of new networks.
        mape, within_10pct, kendall_tau: accuracy of the predictions (`hwnas.latency.kernels.table.KernelValidation`).
        noise_floor: mean relative difference of two measurements.
        speed: of the machine relative to that in the profile, which is corrected for.
        below_upper: share of the networks below their upper bound at 95% confidence; None without bounds.
    """

    target: str
    networks: int
    mape: float
    within_10pct: float
    kendall_tau: float
    noise_floor: float
    speed: float
    below_upper: float | None
