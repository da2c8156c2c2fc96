"""``figures.json``: all that the page of a run shows, as plain values.

The page is drawn from this file alone, so a run's folder can be moved, its stages deleted, and the page be made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hwnas.errors import SpecError
from hwnas.latency.manifest import Validation
from hwnas.targets import Spec

FIGURES = "figures.json"
Facts = dict[str, str]


class Network(Spec):
    """A network as a search sees it.

    Attributes:
        arch: the variables that matter, with their values.
        predicted_ms: by the latency model.
        predicted_accuracy: by the accuracy model.
        validation_accuracy: of the subnet with inherited weights on validation images; None where not evaluated.
    """

    arch: dict[str, int]
    predicted_ms: float
    predicted_accuracy: float
    validation_accuracy: float | None = None


class Tested(Spec):
    """What became of a network in the end: p25 on the target, and top-1 accuracy on the test images."""

    measured_ms: float
    test_accuracy: float


class Search(Spec):
    """What was searched, and what stands beside what was found.

    Attributes:
        front: networks of which none beats another, whatever the budget, by ascending latency.
        front_size: how many the whole front has; those above are spread evenly along it.
        front_strategy: that found it.
        candidates: really evaluated, the most accurate first; the first one is the network found.
        random: drawn among those that keep the budget.
        largest: of the space.
        proof: in words, what is proved of the network found.
    """

    front: list[Network]
    front_size: int
    front_strategy: str
    candidates: list[Network] = Field(min_length=1)
    random: list[Network]
    largest: Network
    proof: str


class TimedNetwork(Spec):
    """A network of a validation: predicted by the model and by the table's plain sum, and measured twice (ms)."""

    arch: dict[str, int]
    predicted_ms: float
    plain_ms: float
    measured_ms: list[float] = Field(min_length=2, max_length=2)


class SlotCost(Spec):
    """Milliseconds of a slot in the network found and in the largest one, and the op of the former.

    The sum over the slots is the prediction. One of a group may be negative: of slots that stand in every network only
    the sum is known.
    """

    slot: str
    group: str
    op: str | None
    found_ms: float
    largest_ms: float


class Choice(Spec):
    """An op that a slot may hold: values of its variables, its time in the table, and whether it was chosen."""

    values: list[int]
    latency_ms: float
    chosen: bool


class TableRow(Spec):
    """A slot's part of the latency table: its op by the variables that it alone reads.

    Attributes:
        slot, group: its names.
        variables: what the variables are of, e.g. kernel and expansion.
        held: the slot's other variables, as they were held.
        choices: the ops.
    """

    slot: str
    group: str
    variables: list[str]
    held: dict[str, int]
    choices: list[Choice]


class StageTime(Spec):
    """A stage of the run."""

    name: str
    seconds: float
    cached: bool


class TargetFigures(Spec):
    """The story of one target.

    Attributes:
        target: ``device/recipe``.
        budget, budget_ms: as asked for, and in milliseconds.
        limit_ms: what a prediction had to keep, so that the measurement keeps the budget at this confidence.
        confidence: of the budget.
        predicted_ms, measured_ms: of the network found.
        test_accuracy: of the network found, deployed.
        torch_accuracy: of the same in torch.
        top1_agreement: share of the test images on which both say the same class.
        max_abs_error: largest difference of a logit.
        images: test images.
        size_bytes: of the deployed program.
        macs, params: of the network found.
        bundle: its folder, relative to the run's.
        too_noisy: the machine was too noisy for the last measurement to be trusted; `spread` says how noisy.
        largest, best_random: what it is compared with; None where no random network keeps the budget.
        search, validation, networks, slots, table, stages: see their classes.
        provenance: title -> name -> value.
    """

    target: str
    budget: str
    budget_ms: float
    limit_ms: float
    confidence: float
    predicted_ms: float
    measured_ms: float
    test_accuracy: float
    torch_accuracy: float
    top1_agreement: float
    max_abs_error: float
    images: int
    size_bytes: int
    macs: int
    params: int
    bundle: str
    too_noisy: bool
    spread: float
    largest: Tested
    best_random: Tested | None
    search: Search
    validation: Validation
    networks: list[TimedNetwork]
    slots: list[SlotCost]
    table: list[TableRow]
    stages: list[StageTime]
    provenance: dict[str, Facts]


class Curve(Spec):
    """Means of a column of a training's metrics over equal numbers of steps."""

    name: str
    steps: list[float]
    values: list[float]


class Training(Spec):
    """Curves of the training, and the step after which each of its phases ended."""

    curves: list[Curve]
    phases: dict[str, int]


class RunFigures(Spec):
    """A run: what its targets share, and the story of each.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        space: its name.
        space_size: number of its networks; a float, for it may have more than a JSON reader counts exactly.
        data: name of the dataset.
        training: None where no metrics are left.
        provenance: as in `TargetFigures`.
        targets: at least one.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    space: str
    space_size: float
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
        SpecError: the folder is none of a run, the run is not finished, or the file is malformed or of a newer hwnas.
    """
    path = run / FIGURES
    if not run.is_dir():
        raise SpecError(f"{run} is no folder; give the output folder of `hwnas compile`")
    if not path.is_file():
        done = sorted({f.parent.name.rpartition("-")[0] for f in (run / "stages").glob("*[!l]/result.json")})
        if (run / "stages").is_dir():
            raise SpecError(
                f"the run in {run} is not finished (finished stages: {', '.join(done) or 'none'}): there is no "
                f"{FIGURES} yet. The same `hwnas compile` goes on where it stopped, and writes the report last"
            )
        raise SpecError(f"{run} is no run: it has neither {FIGURES} nor stages. Make one with: hwnas compile JOB")
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
