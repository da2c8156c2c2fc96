"""The interface of tasks, and metrics: figures of outputs and labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwnas.errors import InvalidValue

if TYPE_CHECKING:
    from hwnas.tasks.figures import ClassificationFigures
    from hwnas.tasks.losses import Loss, LossName

Floats = npt.NDArray[np.float64]
Function = Callable[[Tensor, Tensor], float]
_RESAMPLES = 1000
_ENOUGH = 0.95


class UndefinedMetric(InvalidValue):
    """A metric has no value on some images, such as a precision where none is predicted to have the class."""


class Task(ABC):
    """What the labels of images are, and all that depends on it.

    Attributes:
        name: value of `hwnas.data.Data.task`; supernets and bundles record it.
        images: the images in words, for messages.
        answer: what a network answers for an image, in words.
        label_axes: number of axes of a batch of labels: 1 for classes ``(n,)``, 2 for ``(n, classes)``.
        activation: from outputs to probabilities; the step that a program may include.
        metric: name of the usual metric.
        metrics: name -> function of the index of a class that returns the metric. For None, the metric is of all
            classes.
        of_a_class: metrics that can be of one class.
    """

    name: str
    images: str
    answer: str
    label_axes: int
    activation: Literal["softmax", "sigmoid"]
    metric: str
    metrics: Mapping[str, Callable[[int | None], Function]]
    of_a_class: tuple[str, ...]

    # -- training --------------------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, name: LossName = "cross-entropy", gamma: float = 2.0, weights: Tensor | None = None) -> Loss:
        """The loss on labels.

        Args:
            name: of the loss.
            gamma: exponent of the focal loss.
            weights: of the classes, ``(classes,)``; None for equal weights.
        """

    @abstractmethod
    def probabilities(self, outputs: Tensor) -> Tensor:
        """Probabilities of the classes from outputs, both ``(n, classes)``."""

    @abstractmethod
    def distillation(self, outputs: Tensor, probabilities: Tensor) -> Tensor:
        """The loss on the probabilities of a teacher, both ``(n, classes)``: a scalar."""

    @abstractmethod
    def counts(self, labels: Tensor, classes: int) -> Tensor:
        """Number of images of each class, ``(classes,)``."""

    @abstractmethod
    def balanced_weights(self, counts: Tensor, images: int) -> Tensor:
        """Weights of the classes in the loss that correct for their numbers of images, ``(classes,)``, float32."""

    # -- evaluation ------------------------------------------------------------------------------------------------

    @abstractmethod
    def has(self, labels: Tensor, index: int) -> Tensor:
        """Which images have a class: bool ``(n,)``."""

    @abstractmethod
    def occurring(self, labels: Tensor) -> list[int]:
        """The classes that at least one image has."""

    @abstractmethod
    def scores(self, outputs: Tensor, index: int) -> Floats:
        """Log-odds of a class: ``(n, classes)`` -> ``(n,)``."""

    @abstractmethod
    def of_probabilities(self, probabilities: Tensor) -> Tensor:
        """Outputs with the same answers and ranks as probabilities of a program that includes the activation."""

    @abstractmethod
    def agreement(self, got: Tensor, expected: Tensor) -> float:
        """Share of equal answers of two networks, from their outputs ``(n, classes)``."""

    @abstractmethod
    def figures(self, outputs: Tensor, labels: Tensor, classes: Sequence[str], metric: Metric) -> ClassificationFigures:
        """All figures of a network; see `hwnas.tasks.metrics.figures_of`."""

    # -- bundles ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def lines(self, outputs: str, *, activated: bool) -> str:
        """Python lines that print the answer for an image, from its outputs and the names ``classes``.

        Args:
            outputs: expression of the outputs, ``(classes,)``.
            activated: whether the program includes the activation.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a search maximises: a function of outputs ``(n, classes)`` and labels; larger is better.

    Attributes:
        name: the text that `parse_metric` reads; with the positive class, if it has one, e.g. ``f1 of defective``.
        function: outputs and labels -> value.
        identity: what journals and stages depend on: the name, and of a user's function also the hash of its file.
        task: of the labels.
        positive: name of the positive class, if it has one.
        hits: outputs and labels -> which images are correct, bool ``(n,)``, if the metric is their share.
    """

    name: str
    function: Function
    identity: str
    task: Task
    positive: str | None = None
    hits: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        """The value on outputs ``(n, classes)`` and the labels of the same images.

        Raises:
            InvalidValue: the labels are those of another task, or the value is not a number between 0 and 1.
        """
        if labels.dim() != self.task.label_axes:
            raise InvalidValue(f"{self.name} is a metric of {self.task.images}, not of labels {tuple(labels.shape)}")
        value = float(self.function(outputs, labels))
        if not 0 <= value <= 1:
            raise InvalidValue(f"the metric {self.name} is {value} on {len(labels)} images; it must be between 0 and 1")
        return value

    def interval(self, outputs: Tensor, labels: Tensor, *, seed: int = 0) -> tuple[float, float]:
        """A 95% confidence interval of the value for other images like these.

        For a share of correct images it is Wilson's score interval (Wilson, "Probable Inference, the Law of Succession,
        and Statistical Inference", JASA 22, 1927; recommended by Brown, Cai and DasGupta, "Interval Estimation for a
        Binomial Proportion", Statistical Science 16, 2001); for other metrics, percentiles of bootstrap samples
        (`resampled`).

        Args:
            outputs: ``(n, classes)``.
            labels: of the same images.
            seed: of the resampling.
        """
        if self.hits is not None:
            from scipy.stats import binomtest

            found = binomtest(int(self.hits(outputs, labels).sum()), len(labels))
            interval = found.proportion_ci(confidence_level=_ENOUGH, method="wilson")
            return float(interval.low), float(interval.high)
        low, high = resampled(lambda rows: self.function(outputs[rows], labels[rows]), len(labels), seed=seed)
        if np.isnan(low) or np.isnan(high):  # undefined on every sample: nothing is known
            return 0.0, 1.0
        return min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)


def resampled(statistic: Callable[[Tensor], float], images: int, *, seed: int = 0) -> tuple[float, float]:
    """A 95% confidence interval of a statistic of images: percentiles of 1,000 bootstrap samples.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Args:
        statistic: indices of images ``(images,)`` -> value; samples where it is NaN or undefined are left out.
        images: number of images.
        seed: of the resampling.
    """
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(_RESAMPLES):
        rows = torch.randint(images, (images,), generator=generator)
        with suppress(UndefinedMetric):
            values.append(statistic(rows))
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - _ENOUGH) / 2, (1 + _ENOUGH) / 2])
    return float(low), float(high)


def users_function(name: str, function: Callable[[Tensor, Tensor], object]) -> Function:
    """A user's metric as a function that returns a float; its errors name it.

    Args:
        name: of the metric.
        function: outputs and labels -> a number, or an array or tensor of one.
    """

    def called(outputs: Tensor, labels: Tensor) -> float:
        try:
            value = function(outputs, labels)
            return float(value.item() if isinstance(value, np.ndarray | Tensor) else value)  # type: ignore[arg-type]
        except Exception as error:  # whatever the user's code raises
            # A division by a number of images, or scikit-learn without images of a class: other images may do.
            kind = UndefinedMetric if isinstance(error, ArithmeticError | ValueError) else InvalidValue
            raise kind(
                f"the metric {name} fails on {len(labels)} images: {type(error).__name__}: {error}. It should return a "
                "number between 0 and 1"
            ) from error

    return called


def auc(task: Task, outputs: Tensor, labels: Tensor, positive: int | None) -> float:
    """Area under the ROC curve of a class against the others; without a class, the mean over those that occur.

    It is the share of pairs of an image of the class and another that are ranked correctly (Mann and Whitney, "On a
    Test of Whether one of Two Random Variables is Stochastically Larger than the Other", 1947); 0.5 where all images,
    or none, have the class.
    """
    from scipy.stats import rankdata

    values = []
    for one in task.occurring(labels) if positive is None else [positive]:
        inside = task.has(labels, one).numpy()
        count, others = int(inside.sum()), int((~inside).sum())
        ranks = rankdata(task.scores(outputs, one))[inside].sum() - count * (count + 1) / 2
        values.append(float(ranks / (count * others)) if count and others else 0.5)
    return float(np.mean(values)) if values else float("nan")


def recall_at_precision(task: Task, outputs: Tensor, labels: Tensor, positive: int, precision: float) -> float:
    """The largest recall of a class among thresholds with at least that precision; 0 if there is none."""
    from sklearn.metrics import precision_recall_curve

    inside = task.has(labels, positive)
    if not bool(inside.any()):
        return 0.0
    precisions, recalls, _ = precision_recall_curve(inside, task.scores(outputs, positive))
    return float(max(recalls[precisions >= precision], default=0.0))
