"""Answers about a user's model."""

from __future__ import annotations

from hwnas.deploy.model_bench import ModelTiming
from hwnas.deploy.model_manifest import ModelParity
from hwnas.files import Spec
from hwnas.latency.kernels.table import KernelValidation
from hwnas.workflows.answers import Answer


class ModelFacts(Spec):
    """A model as it was read.

    Attributes:
        name: of the model.
        sha256: of its graph.
        inputs, outputs: name, type and shape in words.
        samples: where its inputs come from, in words.
        notes: what was changed or assumed, as sentences.
    """

    name: str
    sha256: str
    inputs: list[str]
    outputs: list[str]
    samples: str
    notes: list[str]


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


class SweptModel(Spec):
    """A model under one recipe.

    Attributes:
        timing: its latency; without layers.
        parity: its outputs compared with those of the graph in fp32.
        refused: which limits of the recipe's ``[parity]``, or of the loss, it exceeds; None if none.
        quantized: whether it is an int8 program.
        float_layers: layers that an int8 program keeps in float.
    """

    timing: ModelTiming
    parity: ModelParity
    refused: str | None
    quantized: bool
    float_layers: list[str]


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


class PredictedKernel(Spec):
    """A layer of a model on a target.

    Attributes:
        name: of the layer in the compiled model.
        kernel: its key: kind and shapes.
        ms, share: predicted latency, and its share of the model's.
        how: ``measured``, ``estimated`` from kernels of its kind, or ``unknown``: estimated from those of other kinds.
    """

    name: str
    kernel: str
    ms: float
    share: float
    how: str


class PredictAnswer(Answer):
    """Result of `hwnas.workflows.predict`.

    Attributes:
        model: its name.
        target: ``device/recipe``.
        predicted_ms: latency.
        upper_ms: upper bound at `confidence`; None if the table has too few networks for it.
        confidence: of the bound.
        shares: ``measured``, ``estimated`` and ``unknown`` -> share of the kernels' time.
        between_ms: latency that is in no kernel.
        kernels: in the order of the runtime.
        validation: the accuracy of the table on networks that it had not seen.
        measured_on: ISO date of the table.
        notes: caveats, as sentences.
    """

    model: str
    target: str
    predicted_ms: float
    upper_ms: float | None
    confidence: float
    shares: dict[str, float]
    between_ms: float
    kernels: list[PredictedKernel]
    validation: KernelValidation | None
    measured_on: str
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
