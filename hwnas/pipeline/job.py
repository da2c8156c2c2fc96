"""Jobs: the TOML files of `hwnas compile`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, PositiveFloat, PositiveInt, field_validator, model_validator

from hwnas.adapters import AdapterChoice
from hwnas.data import Data, open_data
from hwnas.data.options import DataOptions
from hwnas.engines import EngineConfig
from hwnas.errors import InvalidValue
from hwnas.files import Spec, read_spec
from hwnas.plugins import absolute_name
from hwnas.spaces import InputKind, Space, SpaceOptions, absolute_space, make_space
from hwnas.spaces.traced import remember
from hwnas.spaces.traced.space import space_of
from hwnas.supernet import Phase, TrainConfig, usual_training
from hwnas.supernet.config import finetuning_rate
from hwnas.workflows.budgets import parse_budgets
from hwnas.workflows.processes import Accelerator, Precision
from hwnas.workflows.tracing import WIDTHS, TracedNetwork, traced_of


class SpaceChoice(SpaceOptions):
    """``[space]``: name of the space or its TOML file, options, and variables that are restricted to some values."""

    name: str
    fix: dict[str, int | str | list[int | str]] = Field(default={})


class ModelChoice(Spec):
    """``[model]`` in place of ``[space]``: a trained network, whose widths and blocks are the variables.

    Attributes:
        network: ``timm:NAME``, ``path/to/file.py:NAME``, or a ``.pt2`` file of ``torch.export.save``.
        weights: file of its weights.
        shape: of an image, ``[channels, height, width]``; that of the network's example if None.
        widths, multiple, keep, blocks, ranks, resolutions, importance: as for `hwnas.workflows.elastic`.
        train: whether all subnets are trained first, as ``[training]`` says, with the network as a teacher.
    """

    network: str
    weights: str | None = None
    shape: list[PositiveInt] | None = Field(default=None, min_length=3, max_length=3)
    widths: list[float] = Field(default=list(WIDTHS))
    multiple: PositiveInt = 8
    keep: list[str] = Field(default=[])
    blocks: bool = True
    ranks: list[float] = Field(default=[], exclude_if=lambda ranks: not ranks)
    resolutions: list[PositiveInt] = Field(default=[], exclude_if=lambda resolutions: not resolutions)
    importance: Literal["auto", "l1", "bn", "taylor", "none"] = "auto"
    train: bool = False

    def traced(self, data: Data) -> TracedNetwork:
        """The network, traced.

        Raises:
            ModelError, InvalidValue, PluginError: as for `hwnas.workflows.elastic`.
        """
        how = self.model_dump(exclude={"network", "importance", "train"})
        return traced_of(self.network, data, **how)


class DataChoice(DataOptions):
    """``[data]``: name of the dataset, the folder of one that is read from disk, and how its images are read."""

    name: str
    path: str | None = None

    @property
    def options(self) -> DataOptions:
        """How the images are read."""
        return DataOptions(**{name: getattr(self, name) for name in DataOptions.model_fields})

    def open(self) -> Data:
        """The dataset.

        Raises:
            UnknownName, InvalidValue, DataError: there is no such dataset, or it cannot be read in this way.
        """
        return open_data(self.name, path=Path(self.path) if self.path else None, options=self.options)


class LatencyConfig(Spec):
    """``[latency]``: networks to time for fitting the model, for bounding its error, and for validation.

    Attributes:
        calibration_networks: networks for the fit of the latency model.
        bound_networks: networks whose errors give the upper bounds.
        validation_networks: held-out networks for the validation.
        max_seconds: time limit of one measurement of networks, in seconds; 55 if None.
    """

    calibration_networks: int = Field(default=16, ge=4, le=10_000)
    bound_networks: int = Field(default=24, ge=0, le=10_000)
    validation_networks: int = Field(default=40, ge=2, le=10_000)
    max_seconds: PositiveFloat | None = None


class JobTraining(TrainConfig):
    """``[training]``: a training config, and the hardware of the training.

    Attributes:
        accelerator: auto, cpu or cuda.
        precision: 32-true, or bf16-mixed if the device supports it.
        devices: total number of processes, one per device.
        teacher: folder of a trained supernet whose largest network is an additional teacher.
    """

    accelerator: Accelerator = "cpu"
    precision: Precision = "32-true"
    devices: PositiveInt = 1
    teacher: str | None = None

    @property
    def config(self) -> TrainConfig:
        """The training config only."""
        return TrainConfig.model_validate(self.model_dump(include=set(TrainConfig.model_fields), by_alias=True))


class AccuracyConfig(Spec):
    """``[accuracy]``: subnets to evaluate for the accuracy model, and the images of an evaluation.

    Attributes:
        subnets: number of subnets with inherited weights, spread over cost; all if the space has fewer.
        images: number of validation images, the first ones.
        calibration_images: training images for BN re-calibration.
        metric: what evaluations measure and the search maximises: top1, balanced, f1, auc, mAP,
            ``recall@precision=0.9``, or ``path/to/file.py:function``. None for top1, or mAP for several labels per
            image.
        positive: class of the metric, for mAP, f1, auc and recall@precision.
    """

    subnets: int = Field(default=300, ge=8, le=1_000_000)
    images: PositiveInt = 2000
    calibration_images: PositiveInt = 2000
    metric: str | None = None
    positive: str | None = None

    @property
    def facts(self) -> dict[str, JsonValue]:
        """What stages depend on, besides the metric (`hwnas.tasks.Metric.identity`)."""
        return self.model_dump(exclude={"metric", "positive"})

    def networks(self, space: Space) -> int:
        """Number of subnets of a space to evaluate."""
        return min(self.subnets, space.size)


class SearchConfig(Spec):
    """``[search]``.

    Attributes:
        strategy: see `hwnas.search.STRATEGIES`.
        predictor: of the accuracy model, which re-ranks the networks of the search
            (`hwnas.accuracy.predictors.PREDICTORS`).
        acquisition: which of them are evaluated first (`hwnas.search.acquisition.ACQUISITIONS`).
        candidates: number of networks to evaluate after the search.
        random_networks: number of random networks within the budget, for the baseline.
        confidence: that the measured latency stays within the budget.
        refits: largest number of refits of the latency model, if a bundle misses its budget or bound; each is followed
            by another search, export and benchmark.
    """

    strategy: str = "exact"
    # Stages of older runs do not have these keys.
    predictor: str = Field(default="ensemble", exclude_if=lambda predictor: predictor == "ensemble")
    acquisition: str = Field(default="mean", exclude_if=lambda acquisition: acquisition == "mean")
    candidates: int = Field(default=20, ge=1, le=10_000)
    random_networks: PositiveInt = 50
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    refits: int = Field(default=2, ge=0, le=10)


class FinetuneConfig(Spec):
    """``[finetune]``: train the network found, before its export; the rest is as in ``[training]``.

    Attributes:
        epochs: passes over the training images; 0 for none.
        learning_rate: peak, after a warm-up and before a cosine decay to 0; if None, a twentieth of the usual one of a
            training with this optimizer.
        adapter: method of fine-tuning and its rank, as in ``[training]``; all weights are trained if None.
        distil: whether the largest subnet of the supernet is a teacher, with the `teacher_share` of ``[training]``.
    """

    epochs: float = Field(default=0, ge=0, le=1e6)
    learning_rate: float | None = Field(default=None, gt=0, le=1e30)
    distil: bool = True
    adapter: AdapterChoice | None = Field(default=None, exclude_if=lambda adapter: adapter is None)

    def training(self, config: TrainConfig, images: int) -> TrainConfig:
        """The training config of the fine-tuning.

        Args:
            config: of the supernet's training.
            images: number of training images.
        """
        steps = math.ceil(self.epochs * images / config.batch_size)
        rate = self.learning_rate or finetuning_rate(config.optimizer)
        phase = Phase(name="finetune", steps=steps, learning_rate=rate)
        return config.model_copy(update={"phases": [phase], "adapter": self.adapter})


class ExportConfig(Spec):
    """``[export]``.

    Attributes:
        include: steps that become part of the program: ``normalize`` (it then takes uint8 images, height x width x
            channels) and ``softmax``, or ``sigmoid`` for several labels per image.
        dynamic_batch: whether a run of the program takes any number of images, not only the recipe's batch.
    """

    include: list[Literal["normalize", "softmax", "sigmoid"]] = Field(default=[])
    dynamic_batch: bool = False


def with_unit(value: object) -> object:
    """A latency as in a job's file.

    Raises:
        ValueError: it is a number, whose unit is not known.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'a latency is a text with its unit, "{value}ms"')
    return value


class BenchConfig(Spec):
    """``[bench]``: further budgets of the deployed network, checked in its measurement.

    The search cannot use them, because predictions are of p25 (`Job.budget`).

    Attributes:
        p50, p90, p95, p99: largest quantiles of the latency, such as ``"1.2ms"``.
        images_per_s: least throughput of one stream, at the recipe's batch.
    """

    p50: str | None = None
    p90: str | None = None
    p95: str | None = None
    p99: str | None = None
    images_per_s: PositiveFloat | None = None

    @field_validator("p50", "p90", "p95", "p99", mode="before")
    @classmethod
    def _with_units(cls, value: object) -> object:
        return with_unit(value)

    @property
    def budgets(self) -> dict[str, float]:
        """Name of a figure -> its budget, in milliseconds or images per second.

        Raises:
            InvalidValue: a budget is not a latency in milliseconds.
        """
        return parse_budgets([f"{name}={value}" for name, value in self if value is not None])[1]

    @model_validator(mode="after")
    def _are_budgets(self) -> BenchConfig:
        try:
            _ = self.budgets
        except InvalidValue as error:
            raise ValueError(str(error)) from error
        return self


class Job(Spec):
    """A job.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        targets: ``device/recipe`` each; the device ``this`` is the present host.
        budget: latency, as ``"0.8ms"`` or as a share of the largest network's, ``"50%"``; one for all targets, or a
            table with one per target.
        seed: of all random choices.
    """

    schema_: Literal[1] = Field(alias="schema")
    targets: list[str] = Field(min_length=1)
    budget: str | dict[str, str]
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    space: SpaceChoice | None = None
    model: ModelChoice | None = None
    data: DataChoice
    latency: LatencyConfig = LatencyConfig()
    training: JobTraining = JobTraining()
    accuracy: AccuracyConfig = AccuracyConfig()
    search: SearchConfig = SearchConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    export: ExportConfig = ExportConfig()
    bench: BenchConfig = BenchConfig()
    engine: EngineConfig = EngineConfig()

    @field_validator("budget", mode="before")
    @classmethod
    def _with_units(cls, value: object) -> object:
        for each in value.values() if isinstance(value, dict) else (value,):
            with_unit(each)
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Job:
        if (self.space is None) == (self.model is None):
            raise ValueError("write either [space], or [model] for a trained network of yours")
        return self

    def space_for(self, data: Data) -> Space:
        """The job's space for its data; a network of the user is traced.

        Raises:
            HwnasError: as `make_space`, or as `hwnas.workflows.elastic`.
        """
        if self.model is not None:
            return space_of(remember(self.model.traced(data).spec))
        return self.make_space(reads=data.reads, classes=len(data.classes))

    def for_space(self, space: Space) -> Job:
        """The job with the usual optimizer of the space, unless ``[training]`` says how to train.

        It does so with an optimizer or phases.
        """
        given = self.training.model_fields_set & {"optimizer", "phases"}
        usual = usual_training(space)
        if given or usual.optimizer == self.training.optimizer:
            return self
        own = {"optimizer": usual.optimizer, "phases": usual.phases, "weight_decay": usual.weight_decay}
        kept = {name: value for name, value in own.items() if name not in self.training.model_fields_set}
        return self.model_copy(update={"training": self.training.model_copy(update=kept)})

    def make_space(self, *, reads: InputKind, classes: int) -> Space:
        """The space of ``[space]`` for these inputs and classes.

        Raises:
            UnknownName: no such space, option or variable.
            SpecError: the space is an invalid TOML file.
            InvalidValue: an option does not fit the space, or the variable does not have a value.
        """
        chosen = self.space
        assert chosen is not None
        space = make_space(chosen.name, reads=reads, classes=classes, options=chosen)
        return space.fix(**chosen.fix)


def read_job(path: Path) -> Job:
    """A job from its file; relative paths in it are relative to the file's folder.

    Raises:
        SpecError: the file cannot be read, is not TOML, or has a wrong or unknown key.
    """
    job = read_spec(path, Job)
    # Absolute, because the supernet stores them and can be opened from any folder.
    folder, training = path.parent, job.training
    space, model = job.space, job.model
    if space is not None:
        space = space.model_copy(update={"name": absolute_space(space.name, folder)})
    if model is not None:
        model = model.model_copy(update={"network": absolute_network(model.network, folder)})
        if model.weights is not None:
            model = model.model_copy(update={"weights": str((folder / model.weights).absolute())})
    data = job.data.model_copy(update={"name": absolute_name(job.data.name, folder)})
    if data.path is not None:
        data = data.model_copy(update={"path": str((folder / data.path).absolute())})
    if training.teacher is not None:
        training = training.model_copy(update={"teacher": str((folder / training.teacher).absolute())})
    accuracy = job.accuracy
    if accuracy.metric is not None:
        accuracy = accuracy.model_copy(update={"metric": absolute_name(accuracy.metric, folder)})
    return job.model_copy(
        update={"space": space, "model": model, "data": data, "training": training, "accuracy": accuracy}
    )


def absolute_network(name: str, folder: Path) -> str:
    """The name of a network, independent of the current folder."""
    if name.endswith(".pt2"):
        return str((folder / Path(name).expanduser()).absolute())
    return name if name.startswith("timm:") else absolute_name(name, folder)


def quickstart_job() -> Job:
    """The job of `hwnas quickstart`."""
    return read_spec(Path(__file__).with_name("quickstart.toml"), Job)
