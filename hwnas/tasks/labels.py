"""Multi-label classification: each class is present in an image or not, independently of the others.

Labels are ``(n, classes)``, float32: 1 for present, 0 for absent, or the probability that the class is present. An
evaluation counts a class as present from a probability of 0.5 on, and a network predicts it from an output of 0 on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.data.base import PRESENT
from hwnas.tasks.base import Floats, Function, Metric, Task, auc
from hwnas.tasks.classification import baseline, class_figures, f1_of_counts
from hwnas.tasks.figures import ClassificationFigures, Interval
from hwnas.tasks.losses import BinaryLoss, LossName

_LINES = """\
found = [f"{{name}} {{share:.1%}}" for name, share in zip(classes, {probabilities}) if share >= 0.5]
print("labels", ", ".join(found) or "none")
"""


class MultiLabel(Task):
    """Several labels per image, independent of each other: sigmoid, binary cross entropy, mean average precision."""

    name = "multi-label"
    images = "images with several labels"
    answer = "the labels (the classes with a probability of at least 50%)"
    label_axes = 2
    activation = "sigmoid"
    metric = "mAP"
    of_a_class = ("mAP", "f1", "auc")

    def __init__(self) -> None:
        self.metrics: dict[str, Callable[[int | None], Function]] = {
            "mAP": lambda positive: lambda outputs, labels: mean_average_precision(outputs, labels, positive),
            "f1": lambda positive: lambda outputs, labels: f1(outputs, labels, positive),
            "auc": lambda positive: lambda outputs, labels: auc(self, outputs, labels, positive),
        }

    def loss(self, name: LossName = "cross-entropy", gamma: float = 2.0, weights: Tensor | None = None) -> BinaryLoss:
        """Binary cross entropy or focal loss; the weight of a class is that of the images that have it."""
        return BinaryLoss(name=name, gamma=gamma, weights=weights)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The sigmoid."""
        return outputs.sigmoid()

    def distillation(self, outputs: Tensor, probabilities: Tensor) -> Tensor:
        """The binary cross entropy, a mean over images and classes."""
        return functional.binary_cross_entropy_with_logits(outputs, probabilities)

    def counts(self, labels: Tensor, classes: int) -> Tensor:
        """Sum of the probabilities of each class."""
        return labels.sum(dim=0)

    def balanced_weights(self, counts: Tensor, images: int) -> Tensor:
        """Images without the class divided by images with it: both kinds then have the same weight in its loss."""
        return ((images - counts).clamp(min=1) / counts).float()

    def has(self, labels: Tensor, index: int) -> Tensor:
        """The images in which the class is present."""
        return labels[:, index] >= PRESENT

    def occurring(self, labels: Tensor) -> list[int]:
        """The classes that are present in an image."""
        found: list[int] = (labels >= PRESENT).any(dim=0).nonzero().flatten().tolist()
        return found

    def scores(self, outputs: Tensor, index: int) -> Floats:
        """The outputs, which are log-odds under the sigmoid."""
        return np.asarray(outputs[:, index].double().numpy())

    def of_probabilities(self, probabilities: Tensor) -> Tensor:
        """The probabilities minus 0.5: a class is predicted from 0 on."""
        return probabilities - PRESENT

    def agreement(self, got: Tensor, expected: Tensor) -> float:
        """Share of equal decisions, over images and classes."""
        return float(((got >= 0) == (expected >= 0)).double().mean())

    def figures(self, outputs: Tensor, labels: Tensor, classes: Sequence[str], metric: Metric) -> ClassificationFigures:
        """All figures; there are no confusions."""
        right, images, predicted = (each.double().numpy() for each in _counts(outputs, labels))
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: undefined
            recall, precision, f1 = right / images, right / predicted, 2 * right / (images + predicted)
        low, high = metric.interval(outputs, labels)
        return ClassificationFigures(
            task=self.name,
            images=len(labels),
            metric=metric.name,
            value=metric(outputs, labels),
            interval=Interval(low=low, high=high),
            accuracy=None,
            majority=None,
            majority_share=None,
            baseline=baseline(metric, torch.ones_like(outputs), labels),
            positive=metric.positive,
            classes=class_figures(classes, images.astype(np.int64), predicted.astype(np.int64), recall, precision, f1),
            confusion=None,
            confusions=[],
        )

    def lines(self, outputs: str, *, activated: bool) -> str:
        """The classes with a probability of at least 0.5."""
        return _LINES.format(probabilities=outputs if activated else f"1 / (1 + np.exp(-{outputs}))")


MULTI_LABEL = MultiLabel()


def _counts(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of images of each class, ``(classes,)``: predicted correctly, having it, predicted to have it."""
    truth, told = labels >= PRESENT, outputs >= 0
    right, images, predicted = (each.sum(dim=0) for each in (truth & told, truth, told))
    return right, images, predicted


def f1(outputs: Tensor, labels: Tensor, positive: int | None) -> float:
    """F1 of a class at a probability of 0.5; without a class, the mean over those that occur."""
    right, images, predicted = (each.double() for each in _counts(outputs, labels))
    return f1_of_counts(right, images, predicted, positive)


def mean_average_precision(outputs: Tensor, labels: Tensor, positive: int | None) -> float:
    """Average precision of a class; without a class, the mean over those that occur (mAP).

    The average precision is the mean over the images of the class of the precision among the images that are ranked at
    least as high, as in scikit-learn's `average_precision_score`. It is 0 for a class that no image has.

    Args:
        outputs: ``(n, classes)``.
        labels: ``(n, classes)``.
        positive: index of the class.
    """
    truth = labels >= PRESENT
    columns = truth.any(dim=0) if positive is None else torch.tensor([positive])
    values = _average_precision(outputs[:, columns].T.contiguous(), truth[:, columns].T)
    return float(values.mean())


def _average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Average precision of each row of scores and labels ``(classes, n)``."""
    images = scores.shape[1]
    ranked, order = scores.sort(dim=1, descending=True)
    hits = truth.gather(1, order).double()
    # Images with equal scores have the precision at the last of them: a sort alone would make the value depend on
    # their order.
    last = torch.ones_like(hits, dtype=torch.bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    ends = torch.where(last, torch.arange(images), images).flip(1).cummin(dim=1).values.flip(1)
    precision = hits.cumsum(dim=1) / torch.arange(1, images + 1)
    return (hits * precision.gather(1, ends)).sum(dim=1) / hits.sum(dim=1).clamp(min=1)
