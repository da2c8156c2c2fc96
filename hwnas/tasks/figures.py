"""Figures of a network on labelled images, as values for answers and files; no import of torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from hwnas.files import Spec

Share = Annotated[float, Field(ge=0, le=1)]
_LOWEST = 3  # classes of low recall that `ClassificationFigures.words` names


def metric_suffix(metric: str) -> str:
    """What follows a value in a sentence: the name of its metric; nothing for top-1 accuracy."""
    return "" if metric == "top1" else f" {metric}"


class Interval(Spec):
    """A 95% confidence interval of a share."""

    low: Share
    high: Share

    @property
    def words(self) -> str:
        """``76.4% to 83.2%``."""
        return f"{self.low:.1%} to {self.high:.1%}"


class ClassFigures(Spec):
    """Figures of one class.

    Attributes:
        name: of the class.
        images: images of this class.
        predicted: images that the network classifies as this class.
        recall: share of `images` that are classified correctly; None without images.
        precision: share of `predicted` that belong to the class; None if there are none.
        f1: harmonic mean of both; None if neither exists.
    """

    name: str
    images: NonNegativeInt
    predicted: NonNegativeInt
    recall: Share | None
    precision: Share | None
    f1: Share | None


class Confusion(Spec):
    """Number of images of the class `label` that are classified as another class."""

    label: str
    predicted: str
    images: PositiveInt


class ClassificationFigures(Spec):
    """Figures of a network on labelled images (`hwnas.tasks.metrics.figures_of`).

    If each image has several labels, independent of each other, an image is counted in each of its classes, and those
    fields that need one class per image are None or empty.

    Attributes:
        task: name of the task (`hwnas.tasks.Task`).
        images: number of images.
        metric: what `value` is of, usually top1.
        value: of the metric.
        interval: 95% confidence interval of `value`: for top1 Wilson's, for others by the bootstrap.
        accuracy: top-1 accuracy; None for several labels per image.
        majority: the most frequent class; None for several labels per image.
        majority_share: its share of the images: the accuracy of a constant answer; None likewise.
        baseline: the metric of a constant answer, the majority class or, for several labels per image, all classes;
            None if the metric is undefined for it.
        positive: class of the metric; None if it is of all classes.
        classes: figures of each class, in the order of the outputs; of more than 1,000 classes, the 1,000 with the
            lowest recall.
        confusion: numbers of images, one row per class, one column per predicted class; None for more than 20 classes,
            and for several labels per image.
        confusions: the most frequent confusions, at most 20.
    """

    task: str = Field(default="classification", exclude_if=lambda task: task == "classification")
    images: PositiveInt
    metric: str
    value: Share
    interval: Interval
    accuracy: Share | None
    majority: str | None
    majority_share: Share | None
    baseline: Share | None
    positive: str | None
    classes: list[ClassFigures]
    confusion: list[list[NonNegativeInt]] | None
    confusions: list[Confusion]

    @property
    def constant(self) -> str:
        """The constant answer of the baseline."""
        return "all classes" if self.majority is None else self.majority

    @property
    def lowest_recall(self) -> list[ClassFigures]:
        """The class of the metric; without one, the classes with the lowest recall."""
        if self.positive is not None and (own := [one for one in self.classes if one.name == self.positive]):
            return own
        known = [one for one in self.classes if one.recall is not None]
        return sorted(known, key=lambda one: one.recall or 0.0)[:_LOWEST]

    @property
    def words(self) -> str:
        """The metric with its interval, the baseline, and the recall of the class of the metric or of the worst."""
        parts = [
            f"{self.value:.2%}{metric_suffix(self.metric)} on {self.images} images (95% interval {self.interval.words})"
        ]
        if self.metric != "top1" and self.accuracy is not None:
            parts.append(f"top-1 accuracy {self.accuracy:.2%}")
        constant = self.constant if self.majority is None else repr(self.majority)
        parts.append(
            f"{constant} for every image: " + ("undefined" if self.baseline is None else f"{self.baseline:.2%}")
        )
        shown = self.lowest_recall
        parts.append(
            ("recall " if len(shown) == len(self.classes) or self.positive is not None else "lowest recall ")
            + ", ".join(f"{one.recall or 0.0:.1%} of {one.name!r}" for one in shown)
        )
        if self.positive is not None and shown[0].precision is not None:
            parts.append(f"precision {shown[0].precision:.1%}")
        return "; ".join(parts)


def same_answer(figures: ClassificationFigures | None) -> str:
    """What the agreement of two networks on images counts, in words."""
    return "same class" if figures is None or figures.task == "classification" else "same labels"


class Difference(Spec):
    """The metric of one network minus that of another on the same images.

    Attributes:
        images: number of images.
        value: the difference, as a fraction.
        distinguishable: whether it is significant at the 5% level.
        test: how that was decided.
    """

    images: PositiveInt
    value: float
    distinguishable: bool
    test: Literal["exact McNemar test", "paired bootstrap"]

    @property
    def noise(self) -> str:
        """Whether the difference is significant, in words."""
        how = "" if self.distinguishable else "not "
        return f"{how}distinguishable on {self.images} images ({self.test})"

    @property
    def words(self) -> str:
        """``+0.38 points, not distinguishable on 525 images (exact McNemar test)``."""
        return f"{100 * self.value:+.2f} points, {self.noise}"
