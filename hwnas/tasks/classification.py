"""Classification: each image has one class, or shares of classes that sum to 1 in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.errors import InvalidValue
from hwnas.tasks.base import Floats, Function, Metric, Task, auc
from hwnas.tasks.figures import ClassFigures, ClassificationFigures, Confusion, Interval
from hwnas.tasks.losses import LabelLoss, LossName

MOST_CLASSES = 1000  # classes with figures: a file of 20,000 would take megabytes
WHOLE_CONFUSION = 20  # largest number of classes of a whole confusion matrix
_CONFUSIONS = 20


class Classification(Task):
    """Each image has one class: softmax, cross entropy, top-1 accuracy."""

    name = "classification"
    images = "images with one class each"
    answer = "the class"
    label_axes = 1
    activation = "softmax"
    metric = "top1"
    of_a_class = ("f1", "auc")

    def __init__(self) -> None:
        self.metrics: dict[str, Callable[[int | None], Function]] = {
            "top1": lambda _: top1,
            "balanced": lambda _: balanced,
            "f1": lambda positive: lambda outputs, labels: f1(outputs, labels, positive),
            "auc": lambda positive: lambda outputs, labels: auc(self, outputs, labels, positive),
        }

    def loss(self, name: LossName = "cross-entropy", gamma: float = 2.0, weights: Tensor | None = None) -> LabelLoss:
        """Cross entropy or focal loss."""
        return LabelLoss(name=name, gamma=gamma, weights=weights)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """The softmax."""
        return outputs.softmax(dim=1)

    def distillation(self, outputs: Tensor, probabilities: Tensor) -> Tensor:
        """The cross entropy."""
        return functional.cross_entropy(outputs, probabilities)

    def counts(self, labels: Tensor, classes: int) -> Tensor:
        """Number of images of each class, int64."""
        return torch.bincount(labels, minlength=classes)

    def balanced_weights(self, counts: Tensor, images: int) -> Tensor:
        """``n / (classes * n_c)``, where n_c of the n images belong to class c (King and Zeng 2001).

        As in scikit-learn's `compute_class_weight`.
        """
        return (counts.sum() / (len(counts) * counts)).float()

    def has(self, labels: Tensor, index: int) -> Tensor:
        """The images of the class."""
        return labels == index

    def occurring(self, labels: Tensor) -> list[int]:
        """The classes among the labels."""
        found: list[int] = labels.unique().tolist()
        return found

    def scores(self, outputs: Tensor, index: int) -> Floats:
        """Log-odds under the softmax."""
        return log_odds(outputs, index)

    def of_probabilities(self, probabilities: Tensor) -> Tensor:
        """Their logarithms, of which the softmax is what they are."""
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

    def agreement(self, got: Tensor, expected: Tensor) -> float:
        """Share of images with equal top-1 classes."""
        return top1(got, expected.argmax(dim=1))

    def figures(self, outputs: Tensor, labels: Tensor, classes: Sequence[str], metric: Metric) -> ClassificationFigures:
        """All figures, with confusions."""
        from sklearn.metrics import precision_recall_fscore_support

        truth, told, count = labels.numpy(), outputs.argmax(dim=1).numpy(), len(classes)
        precision, recall, f1, _ = precision_recall_fscore_support(
            truth, told, labels=np.arange(count), zero_division=np.nan
        )
        images, predicted = (np.bincount(each, minlength=count) for each in (truth, told))
        majority = int(images.argmax())
        pairs, numbers = np.unique(truth * count + told, return_counts=True)
        wrong = [(int(pair), int(n)) for pair, n in zip(pairs, numbers, strict=True) if pair // count != pair % count]
        wrong.sort(key=lambda one: -one[1])
        whole = None
        if count <= WHOLE_CONFUSION:
            whole = np.bincount(truth * count + told, minlength=count**2).reshape(count, count).tolist()
        low, high = metric.interval(outputs, labels)
        constant = functional.one_hot(torch.full_like(labels, majority), count).float()
        return ClassificationFigures(
            images=len(labels),
            metric=metric.name,
            value=metric(outputs, labels),
            interval=Interval(low=low, high=high),
            accuracy=top1(outputs, labels),
            majority=classes[majority],
            majority_share=float(images[majority] / len(labels)),
            baseline=baseline(metric, constant, labels),
            positive=metric.positive,
            classes=class_figures(classes, images, predicted, recall, precision, f1),
            confusion=whole,
            confusions=[
                Confusion(label=classes[pair // count], predicted=classes[pair % count], images=n)
                for pair, n in wrong[:_CONFUSIONS]
            ],
        )

    def lines(self, outputs: str, *, activated: bool) -> str:
        """The class with the largest output, which is also the most probable one."""
        return f'print("class", classes[{outputs}.argmax()])\n'


CLASSIFICATION = Classification()


def class_figures(
    classes: Sequence[str],
    images: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    predicted: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    recall: Floats,
    precision: Floats,
    f1: Floats,
) -> list[ClassFigures]:
    """Figures of each class; of more than `MOST_CLASSES`, of those with the lowest recall. NaN becomes None."""
    order: Sequence[int] = range(len(classes))
    if len(classes) > MOST_CLASSES:
        order = np.argsort(np.nan_to_num(recall, nan=2.0), kind="stable")[:MOST_CLASSES].tolist()
    return [
        ClassFigures(
            name=classes[i],
            images=int(images[i]),
            predicted=int(predicted[i]),
            recall=_known(recall[i]),
            precision=_known(precision[i]),
            f1=_known(f1[i]),
        )
        for i in order
    ]


def baseline(metric: Metric, outputs: Tensor, labels: Tensor) -> float | None:
    """The metric of constant outputs; None if it is not a number there."""
    try:
        return metric(outputs, labels)
    except (InvalidValue, ArithmeticError):  # a user's function may divide by the images that are classified as another
        return None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def correct(outputs: Tensor, labels: Tensor) -> Tensor:
    """Which images have their largest output at the label: bool ``(n,)``."""
    return outputs.argmax(dim=1) == labels


def top1(outputs: Tensor, labels: Tensor) -> float:
    """Share of images whose largest output is that of the label."""
    return float(correct(outputs, labels).double().mean())


def confusion(outputs: Tensor, labels: Tensor) -> Tensor:
    """Number of images by label and predicted class, ``(classes, classes)``."""
    classes = outputs.shape[1]
    return torch.bincount(labels * classes + outputs.argmax(dim=1), minlength=classes**2).reshape(classes, classes)


def balanced(outputs: Tensor, labels: Tensor) -> float:
    """Mean over the classes that occur of the share of their images that are classified correctly."""
    counts = confusion(outputs, labels).double()
    images = counts.sum(dim=1)
    return float((counts.diagonal() / images)[images > 0].mean())


def f1(outputs: Tensor, labels: Tensor, positive: int | None) -> float:
    """F1 of a class: harmonic mean of precision and recall; without a class, the mean over those that occur.

    It is 0 where no image has the class and none is predicted to have it.
    """
    counts = confusion(outputs, labels).double()
    return f1_of_counts(counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0), positive)


def f1_of_counts(right: Tensor, images: Tensor, predicted: Tensor, positive: int | None) -> float:
    """F1 of a class, or the mean over those that occur, from numbers of images of each class, ``(classes,)``."""
    values = 2 * right / (images + predicted).clamp(min=1)
    return float(values[images > 0].mean() if positive is None else values[positive])


def log_odds(outputs: Tensor, positive: int) -> Floats:
    """Logarithm of the odds of a class under the softmax of the outputs: ``(n, classes)`` -> ``(n,)``."""
    outputs = outputs.double()
    others = torch.cat([outputs[:, :positive], outputs[:, positive + 1 :]], dim=1)
    return np.asarray((outputs[:, positive] - others.logsumexp(dim=1)).numpy())
