"""Answers about a user's model."""

from __future__ import annotations

from hwnas.deploy.model_bench import ModelTiming
from hwnas.deploy.model_manifest import ModelParity
from hwnas.files import Spec
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
