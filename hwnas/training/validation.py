"""Validations during a training: the metric, early stopping, and detection of overfitting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pydantic import JsonValue
from torch import nn

from hwnas.data.options import Size


class Validated(NamedTuple):
    """Metric of the largest network after `step` updates, as fractions, on images of both splits.

    Training images are preprocessed like test images, without augmentation.
    """

    step: int
    training: float
    validation: float


class Validator(Protocol):
    """Evaluates a network during its training (`hwnas.accuracy.Validation`)."""

    @property
    def name(self) -> str:
        """Name of the metric."""

    @property
    def identity(self) -> str:
        """Settings that affect the validations: the metric, the images and their number."""

    def __call__(self, network: nn.Module, resolution: Size) -> tuple[float, float]:
        """Return the metric on training images and on validation images, as fractions.

        Args:
            network: an extracted network on the device of the training; its BN statistics are re-calibrated in place.
            resolution: side of its input images in pixels, or their height and width.
        """


@dataclass(frozen=True, slots=True)
class History:
    """The validations of a training, and decisions based on them.

    Attributes:
        found: the validations, in the order of their updates.
        begin: number of updates before the last phase. Only validations of the last phase are compared: earlier phases
            train fewer networks.
        stopped: why the training stopped early; None if it did not.
        adapted: of a training with adapters: number of parameters trained, and the ranks that it found.
    """

    found: tuple[Validated, ...] = ()
    begin: int = 0
    stopped: str | None = None
    adapted: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def compared(self) -> tuple[Validated, ...]:
        """The validations of the last phase."""
        return tuple(v for v in self.found if v.step > self.begin)

    @property
    def best(self) -> Validated | None:
        """The validation of the last phase with the best metric; the first one if tied."""
        return max(self.compared, key=lambda v: v.validation, default=None)

    def stop(self, patience: int) -> str | None:
        """Return why the training stops if at least `patience` validations followed the best one, otherwise None."""
        if self.best is None:
            return None
        waited = len(self.compared) - 1 - self.compared.index(self.best)
        if waited < patience:
            return None
        return (
            f"stopped after update {self.compared[-1].step}: none of the last {waited} validations was better than "
            f"{self.best.validation:.2%} after update {self.best.step}, whose weights are kept"
        )

    def overfit(self, images: int) -> str | None:
        """Return a warning if the metric fell significantly on validation images, but not on training images.

        The decrease must exceed two standard errors of a proportion over `images` images, √(p (1 − p) / n).
        """
        if self.best is None:
            return None
        last, best = self.compared[-1], self.best
        noise = 2 * math.sqrt(max(best.validation * (1 - best.validation), 0) / images)
        if best.validation - last.validation <= noise or last.training < best.training:
            return None
        return (
            f"the network overfits: from update {best.step} to {last.step}, the metric fell from {best.validation:.2%} "
            f"to {last.validation:.2%} on validation images and rose from {best.training:.2%} to {last.training:.2%} "
            "on training images. Set patience to keep the weights of the best validation, or train with fewer steps "
            "or more augmentation"
        )


def due(step: int, every: int | None, steps: int) -> bool:
    """Return whether a validation is due after `step` updates of a training.

    Args:
        step: number of updates done.
        every: updates between two validations; 0 for none; None for a tenth of the training, but at least 100.
        steps: total number of updates of the training.
    """
    every = max(100, steps // 10) if every is None else every
    return every > 0 and step % every == 0


def history_of(rows: Sequence[Sequence[float]], begin: int) -> History:
    """Convert the rows of a checkpoint to a history."""
    return History(tuple(Validated(int(step), *shares) for step, *shares in rows), begin)
