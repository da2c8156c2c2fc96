"""``model.json``: what was measured and predicted of a user's model, on one or several targets.

Several commands add to one file; the page is drawn from it only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, PositiveFloat, ValidationError

from hwnas.deploy.model_bench import ModelTiming
from hwnas.deploy.model_manifest import ModelParity
from hwnas.errors import InvalidValue, SpecError
from hwnas.files import Spec
from hwnas.latency.kernels.table import KernelValidation

NOTHING: Mapping[str, str] = MappingProxyType({})


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


class Prediction(Spec):
    """The latency of a model on a target, from a table of kernels.

    Attributes:
        target: ``device/recipe``.
        predicted_ms: latency.
        upper_ms: upper bound at `confidence`; None if the table has too few networks for it.
        confidence: of the bound.
        shares: ``measured``, ``estimated`` and ``unknown`` -> share of the kernels' time.
        between_ms: latency that is in no kernel.
        kernels: in the order of the runtime.
        validation: the accuracy of the table on networks that it had not seen.
        measured_on: ISO date of the table.
    """

    target: str
    predicted_ms: PositiveFloat
    upper_ms: float | None
    confidence: float
    shares: dict[str, float]
    between_ms: float
    kernels: list[PredictedKernel]
    validation: KernelValidation | None
    measured_on: str


class Closeness(Spec):
    """The outputs of a model under a recipe, compared with those of its graph in fp32.

    Attributes:
        parity: the comparison.
        refused: which limits it exceeds; None if none.
        float_layers: layers that an int8 program keeps in float.
    """

    parity: ModelParity
    refused: str | None
    float_layers: list[str]


class ModelTarget(Spec):
    """What is known of a model on a target.

    Attributes:
        target: ``device/recipe``.
        timing: its measured latency; None if it was only predicted.
        closeness: how close its outputs are; None if it was not compared.
        prediction: its predicted latency; None without one.
    """

    target: str
    timing: ModelTiming | None = None
    closeness: Closeness | None = None
    prediction: Prediction | None = None

    @property
    def ms(self) -> float:
        """Its measured latency, or the predicted one."""
        if self.timing is not None:
            return self.timing.measured_ms
        return self.prediction.predicted_ms if self.prediction else 0.0

    @property
    def error(self) -> float | None:
        """``measured / predicted - 1``; None without both."""
        if self.timing is None or self.prediction is None:
            return None
        return self.timing.measured_ms / self.prediction.predicted_ms - 1


class ModelFigures(Spec):
    """The figures of a model.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        model: the model.
        targets: one entry per target, in the order in which they were added.
        left_out: target -> why it cannot run the model.
        picked: the fastest target that is close enough, by the last sweep.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    model: ModelFacts
    targets: list[ModelTarget] = Field(default=[])
    left_out: dict[str, str] = Field(default={})
    picked: str | None = None

    def with_targets(
        self, added: Sequence[ModelTarget], *, left_out: Mapping[str, str] = NOTHING, picked: str | None = None
    ) -> Self:
        """These figures and those of another measurement or prediction, which replace older ones of their kind."""
        known = {one.target: one for one in self.targets}
        for one in added:
            old = known.get(one.target, one)
            kinds = ("timing", "closeness", "prediction")
            known[one.target] = one.model_copy(
                update={name: getattr(one, name) or getattr(old, name) for name in kinds}
            )
        why = {name: text for name, text in {**self.left_out, **left_out}.items() if name not in known}
        return self.model_copy(
            update={"targets": list(known.values()), "left_out": why, "picked": picked or self.picked}
        )

    def json_text(self) -> str:
        """The content of the file."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"


def read_model_figures(path: Path) -> ModelFigures:
    """The figures of a model from their file.

    Raises:
        SpecError: the file cannot be read, is malformed, or of a newer hwnas.
    """
    try:
        return ModelFigures.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SpecError(
            f"{path} is malformed: {where}: {first['msg']}. Delete it, and measure again with: hwnas bench MODEL --out "
            "FOLDER"
        ) from error


def check_same_model(figures: ModelFigures, model: ModelFacts, folder: Path) -> None:
    """Check that a folder has the figures of this model.

    Raises:
        InvalidValue: they are of another one.
    """
    if figures.model.sha256 != model.sha256 or figures.model.inputs != model.inputs:
        raise InvalidValue(
            f"{folder} has the figures of {figures.model.name} ({'; '.join(figures.model.inputs)}; sha256 "
            f"{figures.model.sha256[:12]}…), not of this {model.name} ({'; '.join(model.inputs)}; {model.sha256[:12]}…)"
            ": choose another folder"
        )
