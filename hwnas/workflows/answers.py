"""Typed, versioned answers of use cases. `hwnas VERB --json` prints them, and ``arch.json`` contains one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue

from hwnas.accuracy.figures import AccuracyModelFigures
from hwnas.data.check import DataCheck
from hwnas.files import Spec
from hwnas.latency.manifest import Validation
from hwnas.search.next_steps import NextStep
from hwnas.tasks.figures import ClassificationFigures

VERSION: Literal[1] = 1


class Answer(Spec):
    """Base of all answers.

    Attributes:
        schema_: version of the answer's format, ``schema`` in JSON.
    """

    # A probability may be 0, with an infinite logarithm.
    model_config = ConfigDict(allow_inf_nan=True)

    schema_: Literal[1] = Field(default=VERSION, alias="schema")

    def document(self) -> dict[str, Any]:
        """The answer as JSON values, without inapplicable keys."""
        absent = type(self).model_fields.keys() - self.model_fields_set - {"schema_"}
        return self.model_dump(mode="json", by_alias=True, exclude=absent)


class ProfileAnswer(Answer):
    """Result of `hwnas.workflows.profile`.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        ops: distinct ops of the space.
        rows: of the table, including those of other spaces.
        calibration_networks, bound_networks: numbers of networks for the fit and for the upper bounds.
        held_out_mape: cross-validated error of the model, as a fraction.
        terms: the fitted context terms.
        measurement: protocol and stability of the measurements of ``ops`` and ``networks``.
        table: the table's file.
        up_to_date: whether nothing was missing and nothing was measured.
    """

    target: str
    space: str
    ops: int
    rows: int
    calibration_networks: int
    bound_networks: int
    held_out_mape: float
    terms: dict[str, float]
    measurement: dict[str, dict[str, str | int | float | bool]]
    table: str
    up_to_date: bool


class WorstNetwork(Spec):
    """A badly predicted network: its relative error, and the predicted milliseconds of each slot."""

    arch: dict[str, int | str]
    relative_error: float
    slots_ms: dict[str, float]


class ValidationAnswer(Answer, Validation):
    """Result of `hwnas.workflows.validate`, with the figures in the table's manifest.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        worst: the worst predicted networks.
    """

    target: str
    space: str
    worst: list[WorstNetwork]


class TrainedAnswer(Answer):
    """What a training did.

    Attributes:
        steps, stopped: updates that were done; why there were no more, if the training ended early.
        metric: what the validation measured.
        validation: the last (with `patience` the best) ``step``, ``training`` and ``validation`` metric, if any.
        adapted: with a method of fine-tuning: ``trained_parameters``, and ``ranks`` by weight where the method finds
            them.
    """

    steps: int
    metric: str
    validation: dict[str, float] | None
    stopped: str | None
    adapted: dict[str, JsonValue] = Field(default={})


class TrainAnswer(TrainedAnswer):
    """Result of `hwnas.workflows.train`: names of space and data, and the supernet's folder.

    Attributes:
        new_tensors: of a supernet that was started from one for other classes: weights that were drawn.
    """

    space: str
    data: str
    supernet: str
    new_tensors: list[str] = Field(default=[])


class FinetuneAnswer(TrainedAnswer):
    """Result of `hwnas.workflows.finetune`: the subnet's folder."""

    subnet: str


class AdaptAnswer(Answer):
    """Result of `hwnas.workflows.adapt_supernet`.

    Attributes:
        space: name of the space.
        supernet: the folder.
        tensors: number of tensors that were kept.
        new_tensors: those that were drawn.
    """

    space: str
    supernet: str
    tensors: int
    new_tensors: list[str] = Field(default=[])


class WidthGroup(Spec):
    """A width of a traced network.

    Attributes:
        name: of a layer that makes the channels.
        layers: all that make them, and change together.
        channels: the numbers to choose from.
    """

    name: str
    layers: list[str]
    channels: list[int]


class ElasticAnswer(Answer):
    """Result of `hwnas.workflows.elastic`.

    Attributes:
        space: name of the space.
        networks: number of its networks.
        ops: number of its distinct ops, which a profile measures.
        widths: the widths that can be chosen.
        resolutions: heights of images that can be chosen.
        ranks: layer -> the ranks that can be chosen; the last one stands for the layer itself.
        blocks: number of residual blocks that can be left out.
        fixed: layer whose width cannot be chosen -> why.
        kept_operators: operators without a rule, whose inputs keep their widths.
        importance: measure of the order of channels.
        judged: measure -> mean accuracy of some subnets; empty if one was given.
        params, macs: of the network.
        supernet: the folder.
    """

    space: str
    networks: float
    ops: int
    widths: list[WidthGroup]
    ranks: dict[str, list[int]]
    resolutions: list[int]
    blocks: int
    fixed: dict[str, str]
    kept_operators: list[str]
    importance: str
    judged: dict[str, float]
    params: int
    macs: int
    supernet: str


class SubnetAnswer(Answer):
    """What `hwnas.workflows.extract_subnet` wrote: values of the arch, number of parameters, the subnet's folder."""

    arch: dict[str, int | str]
    params: int
    subnet: str


class EvaluatedSubnet(Answer):
    """A network that `hwnas.workflows.evaluate_subnets` evaluated.

    Attributes:
        name: the file that it was read from, or a description such as "smallest".
        arch: variable -> value.
        metric: what was evaluated, usually top1.
        validation_accuracy: its value on validation images, as a fraction.
        figures: all figures on these images, with an interval; missing in answers of older versions.
    """

    name: str
    arch: dict[str, int | str]
    metric: str = "top1"
    validation_accuracy: float
    figures: ClassificationFigures | None = None


class ImportAnswer(Answer):
    """What `hwnas.workflows.import_supernet` read: name of the space, number of tensors, the supernet's folder."""

    space: str
    tensors: int
    supernet: str


class DataAnswer(Answer):
    """What `hwnas.workflows.check_data` found.

    Attributes:
        path: the folder.
        classes: names of the classes.
        channels: 1 for gray, 3 for colour; of the images that can be read.
        sizes: number of images of each split, with bad ones.
        check: bad, ignored and duplicate files.
    """

    path: str
    classes: list[str]
    channels: int
    sizes: dict[str, int]
    check: DataCheck


class ArchFile(Answer):
    """An arch file, written by searches with ``--out arch.json`` and read by verbs that need an arch.

    Attributes:
        space: name of the space.
        arch: variable -> value.
        budgets: ``device/recipe`` or resource -> the budget, in milliseconds or the resource's unit.
        predicted: the same names -> the predicted cost.
        strategy: strategy that found it.
        stopped: whether the search was stopped early; missing in files of older versions.
        target, budget_ms, predicted_ms: the latency budget, if there is only one: `hwnas export` and `hwnas bench`
            compare with it.
    """

    space: str
    arch: dict[str, int | str]
    budgets: dict[str, float]
    predicted: dict[str, float]
    strategy: str
    stopped: bool = False
    target: str | None = None
    budget_ms: float | None = None
    predicted_ms: float | None = None


class RecipeFigures(Spec):
    """The best network of one recipe in a choice among recipes.

    Attributes:
        target: ``device/recipe``.
        predicted_ms: its latency.
        deployed_accuracy: in the recipe's runtime, on the validation images.
        change: average change of accuracy by the recipe, as a fraction.
        arch: variable -> value.
    """

    target: str
    predicted_ms: float
    deployed_accuracy: float
    change: float
    arch: dict[str, int | str]


class Explanation(Spec):
    """Milliseconds by slot, and the gain of larger budgets."""

    slots_ms: dict[str, float]
    next: list[NextStep]


class NetworkAnswer(ArchFile):
    """The resulting network, with its evaluated accuracy.

    Attributes:
        label: the names of its budgets.
        metric: what was evaluated and maximised, usually top1.
        validation_accuracy: its value on validation images, as a fraction.
        figures: all figures on these images, with an interval, if the network was evaluated with a supernet.
        sufficient: name of a budget -> the smallest budget that this network is within, in the same unit.
        latency_sources: ``device/recipe`` -> ``measured``, ``imported`` or ``estimated``.
        proof: what is proved about the network and what is not.
        predicted_accuracy, accuracy_model: prediction and quality of the accuracy model.
        recipes: all recipes, the best first, in a choice among recipes.
        recipes_left_out: ``device/recipe`` -> the reason, likewise.
        explained: ``device/recipe`` -> where its milliseconds go, if requested.
    """

    label: str
    metric: str = "top1"
    validation_accuracy: float
    figures: ClassificationFigures | None = None
    sufficient: dict[str, float] = Field(default={})
    latency_sources: dict[str, str]
    proof: str
    predicted_accuracy: float | None = None
    accuracy_model: AccuracyModelFigures | None = None
    recipes: list[RecipeFigures] = Field(default=[])
    recipes_left_out: dict[str, str] = Field(default={})
    explained: dict[str, Explanation] = Field(default={})


class SearchAnswer(Answer):
    """Result of `hwnas.search`: one network, or one for each budget of a family."""

    networks: list[NetworkAnswer]

    @property
    def best(self) -> NetworkAnswer:
        """The network; for a family, that of the first budget."""
        return self.networks[0]

    @property
    def stopped(self) -> bool:
        """Whether the search was stopped early."""
        return any(network.stopped for network in self.networks)


class StudyCandidate(Spec):
    """A network that a study trained: its predicted costs and its evaluated accuracy."""

    arch: dict[str, int | str]
    predicted: dict[str, float]
    validation_accuracy: float


class StudyAnswer(NetworkAnswer):
    """The best network of a study.

    Attributes:
        supernet: folder with its weights; None if another worker has them.
        candidates: the best networks that the study trained.
    """

    supernet: str | None
    candidates: list[StudyCandidate]


class MostProbable(Spec):
    """The most probable network regardless of cost, and its predicted costs."""

    arch: dict[str, int | str]
    predicted: dict[str, float]


class RelaxedAnswer(ArchFile):
    """The network that a differentiable search derives from its probabilities.

    Attributes:
        steps: updates.
        ended: why the search ended early, if it did.
        expected: ``device/recipe`` -> the expected latency under the probabilities, in milliseconds.
        argmax: the most probable network regardless of cost.
        near: whether the network is in the window below its budget.
        log_probability: of the network, as a natural logarithm.
        probabilities: variable -> probability of each value.
        notation: the cell in the notation of NAS-Bench-201, in such a space.
    """

    steps: int
    ended: str | None
    expected: dict[str, float]
    argmax: MostProbable
    near: bool
    log_probability: float
    probabilities: dict[str, list[float]]
    notation: str | None = None
