"""What use cases answer: typed, versioned values. `hwnas VERB --json` prints them, and ``arch.json`` holds one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from hwnas.deploy.manifest import ParityReport
from hwnas.files import Spec
from hwnas.latency.manifest import Validation
from hwnas.search.next_steps import NextStep

VERSION: Literal[1] = 1


class Answer(Spec):
    """Base of all answers.

    Attributes:
        schema_: version of the answer's form, ``schema`` in JSON.
    """

    # A probability may be 0; its logarithm is infinite.
    model_config = ConfigDict(allow_inf_nan=True)

    schema_: Literal[1] = Field(default=VERSION, alias="schema")

    def document(self) -> dict[str, Any]:
        """The answer as JSON values; without the keys that do not apply to it."""
        absent = type(self).model_fields.keys() - self.model_fields_set - {"schema_"}
        return self.model_dump(mode="json", by_alias=True, exclude=absent)


class ProfileAnswer(Answer):
    """What `hwnas.workflows.profile` measured.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        ops: distinct ops of the space.
        rows: of the table, those of other spaces among them.
        calibration_networks, bound_networks: that the latency model was fitted on, and that its bounds are read from.
        held_out_mape: error of the model on networks left out of its fit, as a fraction.
        terms: the fitted context terms.
        measurement: how ``ops`` and ``networks`` were timed, and how steady that was.
        table: the table's file.
        up_to_date: whether nothing was missing, so that nothing was measured.
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
    """A network that was predicted badly: its relative error, and the predicted milliseconds of each slot."""

    arch: dict[str, int]
    relative_error: float
    slots_ms: dict[str, float]


class ValidationAnswer(Answer, Validation):
    """What `hwnas.workflows.validate` measured; the figures are those that the table's manifest keeps.

    Attributes:
        target: ``device/recipe``.
        space: name of the space.
        worst: the worst predicted networks.
    """

    target: str
    space: str
    worst: list[WorstNetwork]


class TrainAnswer(Answer):
    """What `hwnas.workflows.train` trained: names of space and data, updates, and the supernet's folder."""

    space: str
    data: str
    steps: int
    supernet: str


class FinetuneAnswer(Answer):
    """What `hwnas.workflows.finetune` trained: updates, and the subnet's folder."""

    steps: int
    subnet: str


class SubnetAnswer(Answer):
    """What `hwnas.workflows.extract_subnet` wrote: values of the arch, number of parameters, the subnet's folder."""

    arch: dict[str, int]
    params: int
    subnet: str


class EvaluatedSubnet(Answer):
    """A network that `hwnas.workflows.evaluate_subnets` evaluated.

    Attributes:
        name: the file that it was read from, or a description such as "smallest".
        arch: variable -> value.
        validation_accuracy: top-1 accuracy on validation images, as a fraction.
    """

    name: str
    arch: dict[str, int]
    validation_accuracy: float


class ImportAnswer(Answer):
    """What `hwnas.workflows.import_supernet` read: name of the space, number of tensors, the supernet's folder."""

    space: str
    tensors: int
    supernet: str


class ArchFile(Answer):
    """An architecture as searches write it, by ``--out arch.json``; verbs that take an arch read it.

    Attributes:
        space: name of the space.
        arch: variable -> value.
        budgets: ``device/recipe`` or resource -> the most that was allowed, in milliseconds or the resource's unit.
        predicted: the same names -> what the network is predicted to cost.
        strategy: that found it.
        stopped: whether the search was cut short; files of older versions do not say it.
        target, budget_ms, predicted_ms: the latency budget, where it is the only one: `hwnas export` and `hwnas bench`
            compare with it.
    """

    space: str
    arch: dict[str, int]
    budgets: dict[str, float]
    predicted: dict[str, float]
    strategy: str
    stopped: bool = False
    target: str | None = None
    budget_ms: float | None = None
    predicted_ms: float | None = None


class ModelQuality(Spec):
    """How well a model predicts networks that it did not see (`hwnas.accuracy.model.Quality`); None where unknown."""

    kendall_tau: float | None
    rmse: float | None
    within_one_sigma: float | None


class AccuracyModelFigures(Spec):
    """The accuracy model of a search: networks it was fitted on, and its quality by cross-validation."""

    subnets: int
    stagewise: ModelQuality
    ensemble: ModelQuality


class RecipeFigures(Spec):
    """The best network of one recipe in a choice among recipes.

    Attributes:
        target: ``device/recipe``.
        predicted_ms: its latency.
        deployed_accuracy: in the recipe's runtime, on the validation images.
        change: what the recipe changes in accuracy, on average, as a fraction.
        arch: variable -> value.
    """

    target: str
    predicted_ms: float
    deployed_accuracy: float
    change: float
    arch: dict[str, int]


class Explanation(Spec):
    """Milliseconds by slot, and what larger budgets would buy."""

    slots_ms: dict[str, float]
    next: list[NextStep]


class NetworkAnswer(ArchFile):
    """A network that was found, with its evaluated accuracy.

    Attributes:
        label: the names of its budgets.
        validation_accuracy: as a fraction.
        latency_sources: ``device/recipe`` -> ``measured``, ``imported`` or ``estimated``.
        proof: what is proved of the network and what is not.
        predicted_accuracy, accuracy_model: by the accuracy model, and how good that is.
        recipes: all recipes, the best one first, in a choice among recipes.
        recipes_left_out: ``device/recipe`` -> the reason, likewise.
        explained: ``device/recipe`` -> where its milliseconds go; where that was asked for.
    """

    label: str
    validation_accuracy: float
    latency_sources: dict[str, str]
    proof: str
    predicted_accuracy: float | None = None
    accuracy_model: AccuracyModelFigures | None = None
    recipes: list[RecipeFigures] = Field(default=[])
    recipes_left_out: dict[str, str] = Field(default={})
    explained: dict[str, Explanation] = Field(default={})


class SearchAnswer(Answer):
    """What `hwnas.search` found: one network, or one for each budget of a family."""

    networks: list[NetworkAnswer]

    @property
    def best(self) -> NetworkAnswer:
        """The network; of a family, that of the first budget."""
        return self.networks[0]

    @property
    def stopped(self) -> bool:
        """Whether the search was cut short."""
        return any(network.stopped for network in self.networks)


class StudyCandidate(Spec):
    """A network that a study trained: what it is predicted to cost, and its evaluated accuracy."""

    arch: dict[str, int]
    predicted: dict[str, float]
    validation_accuracy: float


class StudyAnswer(NetworkAnswer):
    """The best network of a study.

    Attributes:
        supernet: folder with its weights; None where another worker has them.
        candidates: the best networks that the study trained.
    """

    supernet: str | None
    candidates: list[StudyCandidate]


class MostProbable(Spec):
    """The most probable network, whatever it costs, and what it is predicted to cost."""

    arch: dict[str, int]
    predicted: dict[str, float]


class RelaxedAnswer(ArchFile):
    """The network that a differentiable search makes of its probabilities.

    Attributes:
        steps: updates.
        ended: why the search ended before its last update, if it did.
        expected: ``device/recipe`` -> the expected latency under the probabilities, in milliseconds.
        argmax: the most probable network, whatever it costs.
        near: whether the network lies in the window below its budget.
        log_probability: of the network, as a natural logarithm.
        probabilities: variable -> probability of each value.
        notation: the cell as NAS-Bench-201 writes it, in such a space.
    """

    steps: int
    ended: str | None
    expected: dict[str, float]
    argmax: MostProbable
    near: bool
    log_probability: float
    probabilities: dict[str, list[float]]
    notation: str | None = None


class SweptRecipe(Spec):
    """A network under one recipe.

    Attributes:
        target: ``device/recipe``.
        latency_ms: mean of the rounds.
        rounds_ms: p25 of a run, measured in each round.
        repeat: difference of the rounds over their mean.
        unsteady: whether the machine was too noisy within a round.
        too_noisy: whether the latency cannot be trusted, for that or for the difference of the rounds.
        predicted_ms: from the target's table; None without one.
        accuracy: in the recipe's runtime, as a fraction.
        lost: against torch, as a fraction.
        size_bytes: of the program's file.
        parity: outputs beside those of the torch network.
    """

    target: str
    latency_ms: float
    rounds_ms: list[float]
    repeat: float
    unsteady: bool
    too_noisy: bool
    predicted_ms: float | None
    accuracy: float
    lost: float
    size_bytes: int
    parity: ParityReport


class SweepAnswer(Answer):
    """What `hwnas.workflows.sweep` found.

    Attributes:
        arch: variable -> value.
        device: name of the device.
        max_drop: accuracy that may be lost, as a fraction.
        picked: the fastest target that loses no more; None where all lose more.
        recipes: the fastest first.
        left_out: ``device/recipe`` -> why it cannot run the network.
        unpredicted: ``device/recipe`` -> why its table cannot be used.
    """

    arch: dict[str, int]
    device: str
    max_drop: float
    picked: str | None
    recipes: list[SweptRecipe]
    left_out: dict[str, str]
    unpredicted: dict[str, str]


class BenchAnswer(Answer):
    """Latency of a bundle, beside its prediction (`hwnas.deploy.Benchmark`).

    Attributes:
        target: the device that was measured and the recipe.
        predicted_for: the target that the bundle was made for.
        over_budget: measured over budget, minus 1: above 0 the budget is exceeded; None without a budget.
        saturates: why other images may give other outputs on this host; None if they cannot.
    """

    target: str
    predicted_for: str
    measured_ms: float
    p50_ms: float
    p90_ms: float
    predicted_ms: float
    relative_error: float
    budget_ms: float | None
    over_budget: float | None
    spread: float
    too_noisy: bool
    cores: str
    cores_note: str
    saturates: str | None
