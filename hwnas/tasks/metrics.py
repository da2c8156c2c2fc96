"""Metrics by name, and figures of networks by a metric; a search maximises one metric.

A metric is a function of outputs ``(n, classes)`` and the labels of the same images; larger is better, and it lies
between 0 and 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import cast

import torch
from torch import Tensor

from hwnas.errors import InvalidValue, UnknownName, some
from hwnas.plugins import Registry, file_of
from hwnas.tasks.base import Function, Metric, Task, UndefinedMetric, recall_at_precision, resampled, users_function
from hwnas.tasks.catalog import TASKS, task_of
from hwnas.tasks.classification import CLASSIFICATION, correct, top1
from hwnas.tasks.figures import ClassificationFigures, Difference

_AT_PRECISION = re.compile(r"recall@precision=(?P<precision>0?\.\d+|1(\.0)?)")
_SIGNIFICANCE = 0.05
_MOST_TRIED = 1000  # classes of a first call of a user's function
_KNOWN: dict[str, Registry[Callable[[int | None], Function]]] = {
    task.name: Registry(
        "metric",
        "hwnas.metrics",
        task.metrics,
        fits=callable,
        needs="a function (outputs, labels) -> float, or for a plugin (positive: int | None) -> that function",
        takes_files=True,
    )
    for task in TASKS.values()
}
TOP1 = Metric(name="top1", function=top1, identity="top1", task=CLASSIFICATION, hits=correct)


def metric_names() -> list[str]:
    """Names of the metrics: those of hwnas, then those of plugins."""
    own = [name for task in TASKS.values() for name in task.metrics]
    return list(dict.fromkeys([*own, *(name for known in _KNOWN.values() for name in known.names())]))


def parse_metric(
    text: str | None, classes: Sequence[str], positive: str | None = None, *, task: str = CLASSIFICATION.name
) -> Metric:
    """A metric from its name.

    Args:
        text: a key of the task's `metrics`, ``recall@precision=0.9``, or ``path/to/file.py:function`` with a function
            of outputs and labels; None for the usual metric of the task.
        classes: names of the classes.
        positive: the class that `mAP`, `f1`, `auc` and `recall@precision` are of; the first three without a class are
            means over classes.
        task: name of the data's task (`hwnas.data.Data.task`).

    Raises:
        UnknownName: no such metric or class.
        InvalidValue: the metric needs a class, or has none, or is of another task.
        PluginError: the file cannot be loaded.
    """
    of = task_of(task)
    text = of.metric if text is None else text
    if positive is not None and positive not in classes:
        raise UnknownName("class", positive, classes)
    index = None if positive is None else list(classes).index(positive)
    name = text if positive is None else f"{text} of {positive}"
    if match := _AT_PRECISION.fullmatch(text):
        if index is None:
            raise InvalidValue(f"{text} is a figure of one class; choose it with positive, of {some(classes)}")
        at_precision = partial(recall_at_precision, of, positive=index, precision=float(match["precision"]))
        return Metric(name=name, function=at_precision, identity=name, task=of, positive=positive)
    if text.startswith("recall@"):
        raise InvalidValue(f"{text} should be recall@precision=0.9, with a number above 0 and at most 1")
    for other in TASKS.values():
        if text in other.metrics and text not in of.metrics:
            raise InvalidValue(
                f"{text} is a metric of {other.images}, but these data have {of.images}; use one of "
                f"{', '.join(of.metrics)}, or recall@precision=0.9 with the class in positive"
            )
    found = _KNOWN[of.name][text]
    if positive is not None and text not in of.of_a_class:
        raise InvalidValue(
            f"{text} is a figure of all classes; leave positive out, or use one of {', '.join(of.of_a_class)}"
        )
    if text == TOP1.name:
        return TOP1
    if file := file_of(text):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        name = f"{file.name}:{text.rpartition(':')[2]}"  # the folder is the user's, and bundles are given away
        function = users_function(name, cast("Callable[[Tensor, Tensor], object]", found))
        _try(function, of, len(classes))
        return Metric(name=name, function=function, identity=f"{name} {digest}", task=of)
    return Metric(name=name, function=found(index), identity=name, task=of, positive=positive)


def _try(function: Function, task: Task, classes: int) -> None:
    """Call a user's function with outputs that are drawn, before work of minutes whose results it is of.

    Raises:
        InvalidValue: it raises an exception, or returns something else than a number.
    """
    if classes > _MOST_TRIED:
        return
    generator = torch.Generator().manual_seed(0)
    images = 4 * classes
    outputs = torch.randn(images, classes, generator=generator)
    labels = torch.arange(images) % classes
    if task.label_axes == 2:
        labels = torch.nn.functional.one_hot(labels, classes).float()
    with suppress(UndefinedMetric):
        function(outputs, labels)


def figures_of(outputs: Tensor, labels: Tensor, classes: Sequence[str], metric: Metric = TOP1) -> ClassificationFigures:
    """The figures of a network.

    Args:
        outputs: ``(n, classes)``.
        labels: of the metric's task: ``(n,)``, or with several labels per image ``(n, classes)``.
        classes: names of the classes.
        metric: the figure with an interval.
    """
    return metric.task.figures(outputs, labels, classes, metric)


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
        labels: of the metric's task.
    """
    from scipy.stats import binomtest

    found, images = metric(first, labels) - metric(second, labels), len(labels)
    if metric.hits is not None:
        right = [metric.hits(outputs, labels) for outputs in (first, second)]
        only = [int((right[i] & ~right[1 - i]).sum()) for i in (0, 1)]
        significant = sum(only) > 0 and bool(binomtest(only[0], sum(only)).pvalue < _SIGNIFICANCE)
        return Difference(images=images, value=found, distinguishable=significant, test="exact McNemar test")
    function = metric.function
    low, high = resampled(
        lambda rows: function(first[rows], labels[rows]) - function(second[rows], labels[rows]), images
    )
    return Difference(images=images, value=found, distinguishable=low > 0 or high < 0, test="paired bootstrap")
