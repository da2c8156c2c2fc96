"""Metrics of a user's model on samples with labels: classes, or values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwnas.errors import DataError, InvalidValue, UnknownName

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMetric:
    """A figure of the first output and the labels.

    Attributes:
        value: outputs, one entry per sample, and labels ``(n, ...)`` -> the figure.
        constant: the figure of the best constant output: the unit of a loss of an error. None for a share.
        classes: whether labels are classes; else they are values.
    """

    value: Callable[[Sequence[Array], Array], float]
    constant: Callable[[Array], float] | None
    classes: bool


def _top1(outputs: Sequence[Array], labels: Array) -> float:
    told = [int(y.reshape(-1, y.shape[-1])[0].argmax()) for y in outputs]
    return float(np.mean(np.array(told) == labels))


def _errors(outputs: Sequence[Array], labels: Array) -> Array:
    """Output minus label of each sample, float64 ``(n, ...)``.

    Raises:
        DataError: an output has another number of elements than its label.
    """
    size = labels[0].size
    if (found := outputs[0].size) != size:
        raise DataError(f"a label has {size} values, and the first output {found}; labels should have its shape")
    return np.array([y.reshape(labels.shape[1:]) for y in outputs], np.float64) - labels


METRICS: dict[str, SampleMetric] = {
    "top1": SampleMetric(value=_top1, constant=None, classes=True),
    "mse": SampleMetric(
        value=lambda outputs, labels: float(np.mean(_errors(outputs, labels) ** 2)),
        constant=lambda labels: float(np.mean((labels - labels.mean(axis=0)) ** 2)),
        classes=False,
    ),
    "mae": SampleMetric(
        value=lambda outputs, labels: float(np.mean(np.abs(_errors(outputs, labels)))),
        constant=lambda labels: float(np.mean(np.abs(labels - np.median(labels, axis=0)))),
        classes=False,
    ),
}


def metric_name(asked: str | None, labels: Array | None) -> str | None:
    """The metric of some labels: by default ``top1`` for integers, ``mse`` for other numbers; None without labels.

    Args:
        asked: a key of `METRICS`; None for the default.
        labels: of samples.

    Raises:
        UnknownName: there is no such metric.
        InvalidValue: it is asked for without labels, or for labels of another kind.
    """
    if asked is not None and asked not in METRICS:
        raise UnknownName("metric of a model", asked, METRICS)
    if labels is None:
        if asked is not None:
            raise InvalidValue(f"{asked} needs labels: pass samples with an array labels (--inputs samples.npz)")
        return None
    classes = labels.dtype.kind in "iu"
    if asked is None:
        return "top1" if classes else "mse"
    if METRICS[asked].classes and not classes:
        raise InvalidValue(f"{asked} is a metric of classes, but the labels are {labels.dtype}; use mse or mae")
    return asked
