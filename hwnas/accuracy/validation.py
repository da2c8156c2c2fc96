"""The metric of a network during its training."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from hwnas.accuracy.evaluate import calibration_batches, logits, recalibrate
from hwnas.data import Augmentation, Data, Split
from hwnas.data.options import Size
from hwnas.tasks.base import Metric
from hwnas.tasks.metrics import TOP1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """A metric on validation images and on as many training images (`hwnas.training.validation.Validator`).

    Attributes:
        data: the dataset.
        images: largest number of images of each split.
        calibration_images: training images for BN re-calibration.
        metric: what is evaluated.
        augmentation: of the images of the re-calibration.
        seed: of their choice.
    """

    data: Data
    images: int
    calibration_images: int = 500
    metric: Metric = TOP1
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 1

    @property
    def name(self) -> str:
        """Name of the metric."""
        return self.metric.name

    @property
    def identity(self) -> str:
        """What validations depend on: the metric, the validation images, their number."""
        return f"{self.metric.identity} of {self.images} images of {self.data.split_fingerprint('validation')}"

    def __call__(self, network: nn.Module, resolution: Size) -> tuple[float, float]:
        """The metric on training images and on validation images, as fractions.

        Args:
            network: an extracted network; its BN statistics are re-calibrated in place.
            resolution: side of the images that it takes, or their height and width.
        """
        device = next(network.parameters()).device
        count = min(self.calibration_images, self.data.size("train"))
        batches = calibration_batches(self.data, count, resolution, seed=self.seed, augmentation=self.augmentation)
        recalibrate(network, (images.to(device) for images in batches))
        return self._value(network, "train", resolution, device), self._value(network, "validation", resolution, device)

    def _value(self, network: nn.Module, split: Split, resolution: Size, device: torch.device) -> float:
        batches = self.data.batches(split, resolution, limit=self.images)
        outputs, labels = logits(network, ((x.to(device), y) for x, y in batches))
        return self.metric(outputs.cpu(), labels)
