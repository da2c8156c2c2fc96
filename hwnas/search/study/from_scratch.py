"""Networks trained each by itself, from scratch: what one evaluation of a study is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from hwnas.accuracy import Evaluator
from hwnas.data import Data
from hwnas.data.augment import calibration_augmentation
from hwnas.engines import SERIAL, Engine
from hwnas.errors import EngineError, InvalidValue, SearchStopped
from hwnas.files import only_one, temporary_folder
from hwnas.progress import Progress, never, silent
from hwnas.spaces import Arch, Space
from hwnas.supernet import Supernet, SupernetFacts, TrainConfig, read_facts, save_supernet, train
from hwnas.supernet.store import FACTS
from hwnas.tasks.base import Metric
from hwnas.tasks.figures import ClassificationFigures
from hwnas.tasks.metrics import TOP1, figures_of
from hwnas.training.alone import precision_of

if TYPE_CHECKING:
    from hwnas.training.alone import Processes

_PATIENCE_S = 60.0  # for another worker that writes its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One epoch of the training of a network.

    Attributes:
        arch: the network.
        epoch: its number, from 1.
        folder: for the checkpoint from one epoch to the next.
    """

    arch: Arch
    epoch: int
    folder: Path

    def __str__(self) -> str:
        values = " ".join(f"{name}={value}" for name, value in self.arch.items())
        return f"epoch {self.epoch} of the training of {values}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromScratch:
    """A `hwnas.search.study.study.Train`: trains a network in equal parts and evaluates it after each.

    The learning rate follows the schedule of the whole training. The best completely trained network is kept in a
    folder, as the supernet of a space with this one arch; several workers may share the folder.

    Attributes:
        space: of the networks.
        data: what they are trained and evaluated on.
        data_facts: name and path of the data, to open it again.
        config: the whole training.
        epochs: equal parts of it, after each of which a network is evaluated.
        images: number of validation images per evaluation; None for all.
        seed: of initial weights, images and BN re-calibration, the same for all networks.
        fabric: device and precision.
        folder: for the best network.
        study: its name, recorded with the kept network.
        metric: what evaluations measure and the study maximises.
        progress: callback, invoked after every update, in images.
        stop: polled after every update; when it returns True, the training raises `SearchStopped`.
        engine: where each epoch runs. Its workers report no updates and do not poll `stop`: close it to stop them.
        again: makes this object again in a worker, from names and paths; needed by engines with workers.

    Raises:
        InvalidValue: more epochs than updates.
    """

    space: Space
    data: Data
    data_facts: Mapping[str, JsonValue]
    config: TrainConfig
    epochs: int
    images: int | None
    seed: int
    fabric: Processes
    folder: Path
    study: str
    metric: Metric = TOP1
    progress: Progress = silent
    stop: Callable[[], bool] = never
    engine: Engine = SERIAL
    again: Callable[[], FromScratch] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.epochs <= self.config.steps:
            raise InvalidValue(
                f"a training of {self.config.steps} updates has 1 to {self.config.steps} epochs, not "
                f"{self.epochs}; use fewer epochs, or more --steps"
            )

    def __call__(self, arch: Arch) -> Iterator[float]:
        """Train a network, and yield its metric on the validation images after each epoch, as a fraction.

        Raises:
            SearchStopped: it was stopped.
            TrainingDiverged, OutOfMemory, OutputError: as `hwnas.supernet.train` does.
            EngineError: the engine cannot run here, or an epoch ended three of its workers.
        """
        with self._training_folder() as folder:
            for epoch in range(1, self.epochs + 1):
                try:
                    part = Part(arch=arch, epoch=epoch, folder=folder)
                    [(_, value)] = self.engine.map(self.again or (lambda: self), FromScratch.train_part, [part])
                except EngineError as error:
                    if self.stop():
                        raise SearchStopped("a training was stopped") from error
                    raise
                yield value

    def train_part(self, part: Part) -> float:
        """Train a network by one epoch, from the checkpoint of the one before, and evaluate it.

        Returns:
            The metric on the validation images, as a fraction.

        Raises:
            SearchStopped: it was stopped.
            TrainingDiverged, OutOfMemory, OutputError: as `hwnas.supernet.train` does.
        """
        # Its checkpoints are only used to continue from one epoch to the next.
        config = self.config.model_copy(update={"checkpoint_every": self.config.steps})
        network = Supernet(self.space.fix(**part.arch), seed=self.seed)
        train(
            network,
            self.data,
            config,
            seed=self.seed,
            folder=part.folder,
            fabric=self.fabric,
            until=round(part.epoch * config.steps / self.epochs),
            progress=self._told,
        )
        # Evaluated as in an export: averaged weights need their own BN statistics.
        evaluator = Evaluator(
            network.cpu(),
            self.data,
            images=self.images,
            seed=self.seed + 1,
            augmentation=calibration_augmentation(config.augmentation),
        )
        [outputs], labels = evaluator.outputs([part.arch], "validation", self.images)
        if part.epoch == self.epochs:
            self._keep(network, figures_of(outputs, labels, self.data.classes, self.metric))
        return self.metric(outputs, labels)

    def _training_folder(self) -> AbstractContextManager[Path]:
        """A folder for the checkpoint of a training; workers find it below `folder`, which they share."""
        if self.again is None:
            return temporary_folder("the training of a study's network")
        return temporary_folder("the training of a study's network", self.folder)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings that all workers of a study must share, as JSON values."""
        return {
            "data": self.data.fingerprint(),
            "training": self.config.model_dump(mode="json", exclude={"checkpoint_every"}),
            "precision": precision_of(self.fabric),
            "seed": self.seed,
            "validation images": self.images,
            **self._metric_facts,
        }

    @property
    def _metric_facts(self) -> dict[str, JsonValue]:
        """Empty for top-1 accuracy, so that studies of older versions resume."""
        return {} if self.metric is TOP1 else {"metric": self.metric.identity}

    @property
    def kept(self) -> SupernetFacts | None:
        """Facts of the kept network, if there is one; waits for a worker that is writing it."""
        if not self._lock.exists():  # no worker has written here; do not create a lock in an unrelated folder
            return self._read_kept()
        with self._alone():
            return self._read_kept()

    @property
    def _lock(self) -> Path:
        return self.folder / ".lock"

    def _alone(self) -> AbstractContextManager[None]:
        return only_one(self._lock, str(self.folder), wait_s=_PATIENCE_S)

    def _read_kept(self) -> SupernetFacts | None:
        return read_facts(self.folder) if (self.folder / FACTS).exists() else None

    def _keep(self, network: Supernet, figures: ClassificationFigures) -> None:
        """Store a network if its metric is higher than that of the one in the folder."""
        with self._alone():
            kept = self._read_kept()
            before = kept.training.get("validation_accuracy") if kept else None
            if isinstance(before, float) and before >= figures.value:
                return
            training = {
                **self.config.facts(self.seed),
                "precision": precision_of(self.fabric),
                "study": self.study,
                **self._metric_facts,
                "validation_accuracy": figures.value,
                "figures": figures.model_dump(mode="json"),
            }
            (self.folder / FACTS).unlink(missing_ok=True)  # if killed here: no facts instead of wrong ones
            save_supernet(
                network,
                self.folder,
                data=self.data_facts,
                classes=self.data.classes,
                training=training,
                task=self.data.task,
            )

    def _told(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        self.progress(what, done, total, unit=unit, note=note)
        if self.stop():
            raise SearchStopped("a training was stopped")
