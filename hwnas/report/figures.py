"""``figures.json``: all data of a run's page, as plain values.

The page is drawn from this file only, so it can be drawn again after the run's folder was moved or its stages deleted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from hwnas.errors import SpecError
from hwnas.files import Spec
from hwnas.latency.manifest import Validation
from hwnas.report.numbers import Count, Difference, Finite, Milliseconds, Share
from hwnas.report.token_figures import AttentionMap, LengthCurve
from hwnas.tasks.figures import ClassificationFigures, same_answer
from hwnas.tasks.figures import Difference as AccuracyDifference

FIGURES = "figures.json"
MODEL_FIGURES = "model.json"  # of a user's model (`hwnas.report.model_figures`)
Facts = dict[str, str]
Loss = Literal["loss_largest", "loss_random", "loss_smallest"]


class Network(Spec):
    """A network of a search.

    Attributes:
        arch: the variables with an effect, and their values.
        predicted_ms: by the latency model.
        predicted_accuracy: by the accuracy model.
        validation_accuracy: of the subnet with inherited weights on validation images; None if not evaluated.
    """

    arch: dict[str, int | str]
    predicted_ms: Difference
    predicted_accuracy: Finite
    validation_accuracy: Share | None = None


class Tested(Spec):
    """A deployed network: p25 on the target, and top-1 accuracy on the test images."""

    measured_ms: Milliseconds
    test_accuracy: Share


class Search(Spec):
    """The search: its result and baselines.

    Attributes:
        front: Pareto front without a budget, by ascending latency.
        front_size: size of the whole front; `front` is an even selection of it.
        front_strategy: strategy that found it.
        candidates: evaluated networks, the most accurate first; the first is the result.
        random: random networks within the budget.
        largest: the largest network of the space.
        proof: what is proved about the result, in words.
    """

    front: list[Network] = Field(min_length=1)
    front_size: Count
    front_strategy: str
    candidates: list[Network] = Field(min_length=1)
    random: list[Network]
    largest: Network
    proof: str


class TimedNetwork(Spec):
    """A network of a validation: predicted by the model and by the table's plain sum, and measured twice (ms)."""

    arch: dict[str, int | str]
    predicted_ms: Milliseconds
    plain_ms: Difference
    measured_ms: list[Milliseconds] = Field(min_length=2, max_length=2)


class SlotCost(Spec):
    """Milliseconds of a slot in the result and in the largest network, and the op of the former.

    The sum over the slots is the prediction. A slot may be negative: for slots in every network only the sum is known.
    `fixed` slots have the same op in every network of a resolution; runs of older versions do not say so.
    """

    slot: str
    group: str
    op: str | None
    found_ms: Difference
    largest_ms: Difference
    fixed: bool = Field(default=False, exclude_if=lambda fixed: not fixed)


class TableCell(Spec):
    """An op that a slot may hold: values of its variables, its time in the table, and whether it was chosen."""

    values: list[int | str]
    latency_ms: Milliseconds
    chosen: bool


class TableRow(Spec):
    """A slot's part of the latency table: its op by the variables that only it reads.

    Attributes:
        slot, group: its names.
        variables: kinds of the variables, e.g. kernel and expansion.
        held: fixed values of the slot's other variables.
        choices: the ops.
    """

    slot: str
    group: str
    variables: list[str]
    held: dict[str, int | str]
    choices: list[TableCell]


class StageTime(Spec):
    """A stage of the run: its seconds in this run, and those of its execution; None if an older hwnas executed it."""

    name: str
    seconds: Finite
    cached: bool
    took_s: Finite | None = None


class RoundFigures(Spec):
    """A round of search, export and benchmark: milliseconds, and what the measurement is above, if anything."""

    predicted_ms: Milliseconds
    bound_ms: Milliseconds
    measured_ms: Milliseconds
    budget_ms: Milliseconds
    validation_accuracy: Share
    too_noisy: bool
    missed: str | None


class BeforeFinetuning(Spec):
    """Accuracies of a network with inherited and with fine-tuned weights, on the validation images."""

    inherited: Share
    finetuned: Share


class Inherited(Spec):
    """The network found with inherited weights, on the test images; and the deployed one compared with it."""

    accuracy: Share
    difference: AccuracyDifference


class FinetuneFigures(Spec):
    """A fine-tuning of the network found.

    Attributes:
        epochs: passes over the training images.
        validation: before and after.
        kept: whether the fine-tuned weights are deployed.
        inherited: the network with inherited weights; None if these are deployed.
    """

    epochs: Finite
    validation: BeforeFinetuning
    kept: bool
    inherited: Inherited | None

    @property
    def words(self) -> str:
        """In a sentence."""
        before, after = f"{self.validation.inherited:.2%}", f"{self.validation.finetuned:.2%}"
        epochs = f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"
        if not self.kept or self.inherited is None:
            return (
                f"Fine-tuning of {epochs} lowered the validation figure from {before} to {after}: the inherited "
                "weights are deployed."
            )
        return (
            f"Fine-tuned for {epochs}: {before} on the validation images before, {after} after. With the weights that "
            f"it inherits from the supernet, as the other networks have them, it has {self.inherited.accuracy:.2%} on "
            f"the test images; fine-tuned, {self.inherited.difference.words}."
        )


class TargetFigures(Spec):
    """The figures of one target.

    Attributes:
        target: ``device/recipe``.
        budget, budget_ms: as in the job, and in milliseconds.
        limit_ms: limit of predictions for which the measurement is within the budget at this confidence.
        confidence: of the budget.
        predicted_ms, measured_ms: of the result.
        speed: of the machine during the benchmark, relative to its speed in the profile; None if unknown.
        test_accuracy: of the deployed result.
        torch_accuracy: of the result in torch.
        top1_agreement: share of the test images with equal top-1 classes, or of equal labels.
        max_abs_error: largest difference of a logit.
        images: test images.
        size_bytes: of the deployed program.
        macs, params: of the result.
        bundle: its folder, relative to the run's.
        too_noisy: the machine was too noisy for the last measurement to be trusted; `spread` quantifies it.
        largest, best_random: baselines; None if no random network is within the budget.
        classification: figures of the deployed result on the test images; None for a bundle of an older version.
        budgets, over_budgets: further budgets of the measurement, and the share by which each is missed
            (`hwnas.workflows.budgets`).
        finetuned: what fine-tuning has changed; None without it.
        rounds, taken, rounds_ended: the rounds, the number of the deployed one, and why there is no further one.
        search, validation, networks, slots, table, stages, lengths, attention: see their classes.
        provenance: title -> name -> value.
    """

    target: str
    budget: str
    budget_ms: Milliseconds
    limit_ms: Milliseconds
    confidence: Share
    predicted_ms: Milliseconds
    measured_ms: Milliseconds
    speed: Milliseconds | None = None
    test_accuracy: Share
    torch_accuracy: Share
    top1_agreement: Share
    max_abs_error: Finite
    images: Count
    size_bytes: Count
    macs: Count
    params: Count
    bundle: str
    too_noisy: bool
    spread: Finite
    largest: Tested
    best_random: Tested | None
    classification: ClassificationFigures | None = None
    budgets: dict[str, Finite] = Field(default={}, exclude_if=lambda budgets: not budgets)
    over_budgets: dict[str, Finite] = Field(default={}, exclude_if=lambda over: not over)
    finetuned: FinetuneFigures | None = Field(default=None, exclude_if=lambda found: found is None)
    rounds: list[RoundFigures] = Field(default=[], exclude_if=lambda rounds: not rounds)
    taken: Count = 0
    rounds_ended: str | None = None
    search: Search
    validation: Validation
    networks: list[TimedNetwork] = Field(min_length=1)
    slots: list[SlotCost]
    table: list[TableRow]
    lengths: list[LengthCurve] = Field(default=[], exclude_if=lambda curves: not curves)
    attention: list[AttentionMap] = Field(default=[], exclude_if=lambda maps: not maps)
    stages: list[StageTime]
    provenance: dict[str, Facts]

    @property
    def metric(self) -> str:
        """What the accuracies are of, in words."""
        found = self.classification
        return "accuracy" if found is None or found.metric == "top1" else found.metric

    @property
    def same(self) -> str:
        """What the agreement with torch counts, in words."""
        return same_answer(self.classification)

    @model_validator(mode="after")
    def _slots_add_up(self) -> TargetFigures:
        if not sum(slot.found_ms for slot in self.slots) > 0:
            raise ValueError("slots: the sum of found_ms is not a valid latency")
        return self


class Curve(Spec):
    """Means of a column of a training's metrics over equal numbers of steps."""

    name: Loss
    steps: list[Finite] = Field(min_length=1)
    values: list[Finite | None]


class Training(Spec):
    """Curves of the training, all at the same steps, and the step after which each of its phases ended.

    A value is None if no network of its kind was trained, as in a phase of the largest network only.
    """

    curves: list[Curve] = Field(min_length=1)
    phases: dict[str, Count]

    @model_validator(mode="after")
    def _fit_together(self) -> Training:
        for curve in self.curves:
            if curve.steps != self.curves[0].steps or len(curve.values) != len(curve.steps):
                raise ValueError(f"{curve.name} has other steps than {self.curves[0].name}, or not a value for each")
            if all(value is None for value in curve.values):
                raise ValueError(f"{curve.name} has no value")
        return self


class RunFigures(Spec):
    """A run: figures common to its targets, and those of each.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        space: its name.
        space_size: number of its networks; a float, because it may exceed the exact integers of JSON readers.
        data: name of the dataset.
        training: None if the metrics were deleted.
        provenance: as in `TargetFigures`.
        targets: at least one.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    space: str
    space_size: float = Field(ge=1)
    data: str
    training: Training | None
    provenance: dict[str, Facts]
    targets: list[TargetFigures] = Field(min_length=1)

    def json_text(self) -> str:
        """The content of the file."""
        return self.model_dump_json(by_alias=True) + "\n"


def read_figures(run: Path) -> RunFigures:
    """The figures of a finished run.

    Raises:
        SpecError: the folder is not a run, the run is not finished, or the file is malformed or of a newer hwnas.
    """
    path = run / FIGURES
    if not run.is_dir():
        raise SpecError(f"{run} is not a folder; pass the output folder of `hwnas compile`")
    if not path.is_file():
        done = sorted({f.parent.name.rpartition("-")[0] for f in (run / "stages").glob("*[!l]/result.json")})
        if (run / "stages").is_dir():
            raise SpecError(
                f"the run in {run} is not finished (finished stages: {', '.join(done) or 'none'}): there is no "
                f"{FIGURES} yet. The same `hwnas compile` resumes it, and writes the report last"
            )
        raise SpecError(f"{run} is not a run: it has neither {FIGURES} nor stages. `hwnas compile` creates one")
    try:
        return RunFigures.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        hint = "; it was written by a newer hwnas" if first["loc"] == ("schema",) else ""
        raise SpecError(
            f"{path} is malformed: {where}: {first['msg']}{hint}. Write it again with the same `hwnas compile`"
        ) from error
