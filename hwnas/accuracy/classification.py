"""Figures of a classifier from its outputs and labels, and differences of two classifiers on the same images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.accuracy.figures import ClassFigures, ClassificationFigures, Confusion, Difference, Interval
from hwnas.accuracy.metrics import TOP1, Metric, resampled
from hwnas.errors import InvalidValue

MOST_CLASSES = 1000  # classes with figures: a file of 20,000 would take megabytes
WHOLE_CONFUSION = 20  # largest number of classes of a whole confusion matrix
_CONFUSIONS = 20
_SIGNIFICANCE = 0.05


def figures_of(outputs: Tensor, labels: Tensor, classes: Sequence[str], metric: Metric = TOP1) -> ClassificationFigures:
    """The figures of a classifier.

    Args:
        outputs: ``(n, classes)``.
        labels: ``(n,)``.
        classes: names of the classes.
        metric: the figure with an interval.
    """
    from sklearn.metrics import precision_recall_fscore_support

    truth, told, count = labels.numpy(), outputs.argmax(dim=1).numpy(), len(classes)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, told, labels=np.arange(count), zero_division=np.nan
    )
    images, predicted = (np.bincount(each, minlength=count) for each in (truth, told))
    order = range(count)
    if count > MOST_CLASSES:
        order = np.argsort(np.nan_to_num(recall, nan=2.0), kind="stable")[:MOST_CLASSES].tolist()
    majority = int(images.argmax())
    pairs, numbers = np.unique(truth * count + told, return_counts=True)
    wrong = [(int(pair), int(n)) for pair, n in zip(pairs, numbers, strict=True) if pair // count != pair % count]
    wrong.sort(key=lambda one: -one[1])
    whole = None
    if count <= WHOLE_CONFUSION:
        whole = np.bincount(truth * count + told, minlength=count**2).reshape(count, count).tolist()
    low, high = metric.interval(outputs, labels)
    return ClassificationFigures(
        images=len(labels),
        metric=metric.name,
        value=metric(outputs, labels),
        interval=Interval(low=low, high=high),
        accuracy=TOP1(outputs, labels),
        majority=classes[majority],
        majority_share=float(images[majority] / len(labels)),
        baseline=_constant(metric, majority, count, labels),
        positive=metric.positive,
        classes=[
            ClassFigures(
                name=classes[i],
                images=int(images[i]),
                predicted=int(predicted[i]),
                recall=_known(recall[i]),
                precision=_known(precision[i]),
                f1=_known(f1[i]),
            )
            for i in order
        ],
        confusion=whole,
        confusions=[
            Confusion(label=classes[pair // count], predicted=classes[pair % count], images=n)
            for pair, n in wrong[:_CONFUSIONS]
        ],
    )


def difference_of(metric: Metric, first: Tensor, second: Tensor, labels: Tensor) -> Difference:
    """The metric of one network minus that of another, and whether the same images distinguish them.

    For top-1 accuracy McNemar's exact test decides, on the images that only one of the networks classifies correctly
    (McNemar, "Note on the Sampling Error of the Difference between Correlated Proportions", Psychometrika 12, 1947);
    for other metrics, whether 0 lies outside the 95% interval of the difference by a paired bootstrap (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3).

    Args:
        metric: what is compared.
        first: outputs of one network, ``(n, classes)``.
        second: outputs of the other, likewise.
        labels: ``(n,)``.
    """
    from scipy.stats import binomtest

    found, images = metric(first, labels) - metric(second, labels), len(labels)
    if metric is TOP1:
        right = [outputs.argmax(dim=1) == labels for outputs in (first, second)]
        only = [int((right[i] & ~right[1 - i]).sum()) for i in (0, 1)]
        significant = sum(only) > 0 and bool(binomtest(only[0], sum(only)).pvalue < _SIGNIFICANCE)
        return Difference(images=images, value=found, distinguishable=significant, test="exact McNemar test")
    function = metric.function
    low, high = resampled(
        lambda rows: function(first[rows], labels[rows]) - function(second[rows], labels[rows]), images
    )
    return Difference(images=images, value=found, distinguishable=low > 0 or high < 0, test="paired bootstrap")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _constant(metric: Metric, answer: int, classes: int, labels: Tensor) -> float | None:
    """The metric of a network with the same answer for every image; None if it is not a number there."""
    outputs = functional.one_hot(torch.full_like(labels, answer), classes).float()
    try:
        return metric(outputs, labels)
    except (InvalidValue, ArithmeticError):  # a user's function may divide by the images that are classified as another
        return None
