"""Figures of a classifier from its outputs and labels; a search maximises one of them, its metric.

A metric is a function of outputs ``(n, classes)`` and labels ``(n,)``; larger is better, and it lies between 0 and 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwnas.errors import InvalidValue, UnknownName, some
from hwnas.plugins import Registry, file_of

Floats = npt.NDArray[np.float64]
Function = Callable[[Tensor, Tensor], float]
_AT_PRECISION = re.compile(r"recall@precision=(?P<precision>0?\.\d+|1(\.0)?)")
_RESAMPLES = 1000
_ENOUGH = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a search maximises.

    Attributes:
        name: the text that `parse_metric` reads; with the positive class, if it has one, e.g. ``f1 of defective``.
        function: outputs and labels -> value.
        identity: what journals and stages depend on: the name, and of a user's function also the hash of its file.
        positive: name of the positive class, if it has one.
    """

    name: str
    function: Function
    identity: str
    positive: str | None = None

    def __call__(self, outputs: Tensor, labels: Tensor) -> float:
        """The value on outputs ``(n, classes)`` and labels ``(n,)``.

        Raises:
            InvalidValue: it is not a number between 0 and 1.
        """
        value = float(self.function(outputs, labels))
        if not 0 <= value <= 1:
            raise InvalidValue(f"the metric {self.name} is {value} on {len(labels)} images; it must be between 0 and 1")
        return value

    def interval(self, outputs: Tensor, labels: Tensor, *, seed: int = 0) -> tuple[float, float]:
        """A 95% confidence interval of the value for other images like these.

        For top-1 accuracy it is Wilson's score interval (Wilson, "Probable Inference, the Law of Succession, and
        Statistical Inference", JASA 22, 1927; recommended by Brown, Cai and DasGupta, "Interval Estimation for a
        Binomial Proportion", Statistical Science 16, 2001); for other metrics, percentiles of bootstrap samples
        (`resampled`).

        Args:
            outputs: ``(n, classes)``.
            labels: ``(n,)``.
            seed: of the resampling.
        """
        if self.function is top1:
            from scipy.stats import binomtest

            found = binomtest(int((outputs.argmax(dim=1) == labels).sum()), len(labels))
            interval = found.proportion_ci(confidence_level=_ENOUGH, method="wilson")
            return float(interval.low), float(interval.high)
        return resampled(lambda rows: self.function(outputs[rows], labels[rows]), len(labels), seed=seed)


def resampled(statistic: Callable[[Tensor], float], images: int, *, seed: int = 0) -> tuple[float, float]:
    """A 95% confidence interval of a statistic of images: percentiles of 1,000 bootstrap samples.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.

    Args:
        statistic: indices of images ``(images,)`` -> value; samples where it is NaN are left out.
        images: number of images.
        seed: of the resampling.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [statistic(torch.randint(images, (images,), generator=generator)) for _ in range(_RESAMPLES)]
    low, high = np.nanquantile(values, [(1 - _ENOUGH) / 2, (1 + _ENOUGH) / 2])
    return float(low), float(high)


def top1(outputs: Tensor, labels: Tensor) -> float:
    """Share of images whose largest output is that of the label."""
    return float((outputs.argmax(dim=1) == labels).double().mean())


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
    images, predicted = counts.sum(dim=1), counts.sum(dim=0)
    values = 2 * counts.diagonal() / (images + predicted).clamp(min=1)
    return float(values[images > 0].mean() if positive is None else values[positive])


def auc(outputs: Tensor, labels: Tensor, positive: int | None) -> float:
    """Area under the ROC curve of a class against the others; without a class, the mean over those that occur.

    It is the share of pairs of an image of the class and another that are ranked correctly (Mann and Whitney, "On a
    Test of Whether one of Two Random Variables is Stochastically Larger than the Other", 1947); 0.5 where all labels
    are of one class.
    """
    from scipy.stats import rankdata

    values = []
    for one in labels.unique().tolist() if positive is None else [positive]:
        inside = (labels == one).numpy()
        count, others = int(inside.sum()), int((~inside).sum())
        ranks = rankdata(log_odds(outputs, one))[inside].sum() - count * (count + 1) / 2
        values.append(float(ranks / (count * others)) if count and others else 0.5)
    return float(np.mean(values))


def recall_at_precision(outputs: Tensor, labels: Tensor, positive: int, precision: float) -> float:
    """The largest recall of a class among thresholds with at least that precision; 0 if there is none."""
    from sklearn.metrics import precision_recall_curve

    if not bool((labels == positive).any()):
        return 0.0
    precisions, recalls, _ = precision_recall_curve(labels == positive, log_odds(outputs, positive))
    return float(max(recalls[precisions >= precision], default=0.0))


def log_odds(outputs: Tensor, positive: int) -> Floats:
    """Logarithm of the odds of a class under the softmax of the outputs: ``(n, classes)`` -> ``(n,)``."""
    outputs = outputs.double()
    others = torch.cat([outputs[:, :positive], outputs[:, positive + 1 :]], dim=1)
    return np.asarray((outputs[:, positive] - others.logsumexp(dim=1)).numpy())


METRICS: dict[str, Callable[[int | None], Function]] = {
    "top1": lambda _: top1,
    "balanced": lambda _: balanced,
    "f1": lambda positive: lambda outputs, labels: f1(outputs, labels, positive),
    "auc": lambda positive: lambda outputs, labels: auc(outputs, labels, positive),
}
_OF_A_CLASS = ("f1", "auc")
_KNOWN = Registry(
    "metric",
    "hwnas.metrics",
    METRICS,
    fits=callable,
    needs="a function (outputs, labels) -> float, or for a plugin (positive: int | None) -> that function",
    takes_files=True,
)


def metric_names() -> list[str]:
    """Names of the metrics: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def parse_metric(text: str, classes: Sequence[str], positive: str | None = None) -> Metric:
    """A metric from its name.

    Args:
        text: a key of `METRICS`, ``recall@precision=0.9``, or ``path/to/file.py:function`` with a function of outputs
            and labels.
        classes: names of the classes.
        positive: the class that `f1`, `auc` and `recall@precision` are of; `f1` and `auc` without one are means over
            classes.

    Raises:
        UnknownName: no such metric or class.
        InvalidValue: the metric needs a class, or has none.
        PluginError: the file cannot be loaded.
    """
    if positive is not None and positive not in classes:
        raise UnknownName("class", positive, classes)
    index = None if positive is None else list(classes).index(positive)
    name = text if positive is None else f"{text} of {positive}"
    if match := _AT_PRECISION.fullmatch(text):
        if index is None:
            raise InvalidValue(f"{text} is a figure of one class; choose it with positive, of {some(classes)}")
        precision = float(match["precision"])
        at_precision = partial(recall_at_precision, positive=index, precision=precision)
        return Metric(name=name, function=at_precision, identity=name, positive=positive)
    found = _KNOWN[text]
    if positive is not None and text not in _OF_A_CLASS:
        raise InvalidValue(
            f"{text} is a figure of all classes; leave positive out, or use one of {', '.join(_OF_A_CLASS)}"
        )
    if text == "top1":
        return TOP1
    if file := file_of(text):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return Metric(name=name, function=cast("Function", found), identity=f"{name} {digest}")
    return Metric(name=name, function=found(index), identity=name, positive=positive)


TOP1 = Metric(name="top1", function=top1, identity="top1")
