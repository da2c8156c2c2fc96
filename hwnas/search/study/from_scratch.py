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
from hwnas.errors import InvalidValue, SearchStopped
from hwnas.files import only_one, temporary_folder
from hwnas.progress import Progress, never, silent
from hwnas.spaces import Arch, Space
from hwnas.supernet import Supernet, SupernetFacts, TrainConfig, read_facts, save_supernet, train
from hwnas.supernet.store import FACTS
from hwnas.training.alone import precision_of

if TYPE_CHECKING:
    from hwnas.training.alone import Processes

_PATIENCE_S = 60.0  # for another worker that writes its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FromScratch:
    """A `hwnas.search.study.study.Train`: trains a network in equal parts and evaluates it after each.

    The learning rate is that of the whole training, whichever part is under way. The best network that was trained to
    the end stays in a folder, as the supernet of a space with this one arch; several workers may share the folder.

    Attributes:
        space: of the networks.
        data: what they are trained and evaluated on.
        data_facts: name and path of the data, to open it again.
        config: the whole training.
        epochs: equal parts of it, after each of which a network is evaluated.
        images: of the validation split that an evaluation takes, the first ones; None for all.
        seed: of initial weights, images and BN re-calibration, the same for all networks.
        fabric: device and precision.
        folder: for the best network.
        study: its name, by which the folder's network is known to be of this study.
        progress: callback, invoked after every update, in images.
        stop: asked as often; after a True the training raises `SearchStopped`.

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
    progress: Progress = silent
    stop: Callable[[], bool] = never

    def __post_init__(self) -> None:
        if not 0 < self.epochs <= self.config.steps:
            raise InvalidValue(
                f"a training of {self.config.steps} updates falls into 1 to {self.config.steps} epochs, not "
                f"{self.epochs}; give fewer, or more --steps"
            )

    def __call__(self, arch: Arch) -> Iterator[float]:
        """Train a network, and give its validation accuracy after each epoch, as a fraction.

        Raises:
            SearchStopped: it was stopped.
            TrainingDiverged, OutOfMemory, OutputError: as `hwnas.supernet.train` does.
        """
        # Its checkpoints lead from one epoch to the next, and are good for nothing else.
        config = self.config.model_copy(update={"checkpoint_every": self.config.steps})
        with temporary_folder("the training of a study's network") as folder:
            for epoch in range(1, self.epochs + 1):
                network = Supernet(self.space.fix(**arch), seed=self.seed)
                train(
                    network,
                    self.data,
                    config,
                    seed=self.seed,
                    folder=folder,
                    fabric=self.fabric,
                    until=round(epoch * config.steps / self.epochs),
                    progress=self._told,
                )
                # As it is evaluated and exported later: moving averages of weights need BN statistics of their own.
                evaluator = Evaluator(
                    network.cpu(),
                    self.data,
                    images=self.images,
                    seed=self.seed + 1,
                    augmentation=calibration_augmentation(config.augmentation),
                )
                accuracy = evaluator.accuracy(arch)
                if epoch == self.epochs:
                    self._keep(network, accuracy)
                yield accuracy

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What all workers of a study have in common, as JSON values."""
        return {
            "data": self.data.fingerprint(),
            "training": self.config.model_dump(mode="json", exclude={"checkpoint_every"}),
            "precision": precision_of(self.fabric),
            "seed": self.seed,
            "validation images": self.images,
        }

    @property
    def kept(self) -> SupernetFacts | None:
        """What the folder's network is, if there is one; another worker that writes it is waited for."""
        if not self._lock.exists():  # no worker has written here; a folder of something else is left as it is
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

    def _keep(self, network: Supernet, accuracy: float) -> None:
        """Store a network if it is better than the one in the folder."""
        with self._alone():
            kept = self._read_kept()
            before = kept.training.get("validation_accuracy") if kept else None
            if isinstance(before, float) and before >= accuracy:
                return
            training = {
                **self.config.facts(self.seed),
                "precision": precision_of(self.fabric),
                "study": self.study,
                "validation_accuracy": accuracy,
            }
            (self.folder / FACTS).unlink(missing_ok=True)  # a kill leaves no facts rather than those of other weights
            save_supernet(network, self.folder, data=self.data_facts, classes=self.data.classes, training=training)

    def _told(self, what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        self.progress(what, done, total, unit=unit, note=note)
        if self.stop():
            raise SearchStopped("a training was stopped")
