"""Figures of a classifier and of an accuracy model, as values for answers and files; no import of torch."""

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
    """Figures of a classifier on labelled images (`hwnas.accuracy.classification.figures_of`).

    Attributes:
        images: number of images.
        metric: what `value` is of, usually top1.
        value: of the metric.
        interval: 95% confidence interval of `value`: for top1 Wilson's, for others by the bootstrap.
        accuracy: top-1 accuracy.
        majority: the most frequent class.
        majority_share: its share of the images: the accuracy of a constant answer.
        baseline: the metric of that constant answer; None if the metric is undefined for it.
        positive: class of the metric; None if it is of all classes.
        classes: figures of each class, in the order of the outputs; of more than 1,000 classes, the 1,000 with the
            lowest recall.
        confusion: numbers of images, one row per class, one column per predicted class; None for more than 20 classes.
        confusions: the most frequent confusions, at most 20.
    """

    images: PositiveInt
    metric: str
    value: Share
    interval: Interval
    accuracy: Share
    majority: str
    majority_share: Share
    baseline: Share | None
    positive: str | None
    classes: list[ClassFigures]
    confusion: list[list[NonNegativeInt]] | None
    confusions: list[Confusion]

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
        if self.metric != "top1":
            parts.append(f"top-1 accuracy {self.accuracy:.2%}")
        constant = f"{self.majority!r} for every image:"
        parts.append(f"{constant} " + ("undefined" if self.baseline is None else f"{self.baseline:.2%}"))
        shown = self.lowest_recall
        parts.append(
            ("recall " if len(shown) == len(self.classes) or self.positive is not None else "lowest recall ")
            + ", ".join(f"{one.recall or 0.0:.1%} of {one.name!r}" for one in shown)
        )
        if self.positive is not None and shown[0].precision is not None:
            parts.append(f"precision {shown[0].precision:.1%}")
        return "; ".join(parts)


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


class ModelQuality(Spec):
    """Cross-validated accuracy of a model (`hwnas.accuracy.model.Quality`); None if unknown."""

    kendall_tau: float | None
    rmse: float | None
    within_one_sigma: float | None


class AccuracyModelFigures(Spec):
    """The accuracy model of a search: number of fitted networks, and its quality by cross-validation."""

    subnets: int
    stagewise: ModelQuality
    ensemble: ModelQuality

    @property
    def words(self) -> str:
        """Kendall τ and RMSE of both models."""
        quality = (
            f"{name} τ {one.kendall_tau or 0:.3f}, RMSE {one.rmse or 0:.2%}"
            for name, one in (("stagewise", self.stagewise), ("ensemble", self.ensemble))
        )
        return f"on {self.subnets} subnets, by cross-validation: {'; '.join(quality)}"
