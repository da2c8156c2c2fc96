"""Metrics of a user's model on samples with labels: classes, or values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwnas.errors import DataError, InvalidValue, UnknownName

Array = npt.NDArray[Any]
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMetric:
    """A figure of the first output and the labels.

    Attributes:
        value: outputs, one entry per sample, and labels ``(n, ...)`` -> the figure.
        constant: the figure of the best constant output, which is the unit of a loss of an error; 0 where all labels
            are equal. None for a share.
        classes: whether labels are classes; else they are values.
    """

    value: Callable[[Sequence[Array], Array], float]
    constant: Callable[[Array], float] | None
    classes: bool


def _top1(outputs: Sequence[Array], labels: Array) -> float:
    told = [int(y.reshape(-1, y.shape[-1])[0].argmax()) for y in outputs]
    return float(np.mean(np.array(told) == labels.ravel()))


def _errors(outputs: Sequence[Array], labels: Array) -> Array:
    """Output minus label of each sample, float64 ``(n, ...)``.

    Raises:
        DataError: an output has another number of elements than its label.
    """
    size = labels[0].size
    if (found := outputs[0].size) != size:
        raise DataError(f"a label has {size} values, and the first output {found}; labels should have its shape")
    return np.array([y.reshape(labels.shape[1:]) for y in outputs], np.float64) - labels


def _spread(errors: Array, sizes: Array) -> float:
    """The mean of errors; 0 where they are but rounding of numbers of that size: labels that are all equal."""
    found = float(np.mean(errors))
    return found if found > _ROUNDING * float(np.mean(sizes)) else 0.0


METRICS: dict[str, SampleMetric] = {
    "top1": SampleMetric(value=_top1, constant=None, classes=True),
    "mse": SampleMetric(
        value=lambda outputs, labels: float(np.mean(_errors(outputs, labels) ** 2)),
        constant=lambda labels: _spread((labels - labels.mean(axis=0)) ** 2, labels.astype(np.float64) ** 2),
        classes=False,
    ),
    "mae": SampleMetric(
        value=lambda outputs, labels: float(np.mean(np.abs(_errors(outputs, labels)))),
        constant=lambda labels: _spread(np.abs(labels - np.median(labels, axis=0)), np.abs(labels)),
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
    name = asked or ("top1" if classes else "mse")
    if METRICS[name].classes and not classes:
        raise InvalidValue(f"{name} is a metric of classes, but the labels are {labels.dtype}; use mse or mae")
    if METRICS[name].classes and labels.size != len(labels):
        raise InvalidValue(
            f"{name} needs one class per sample, ({len(labels)},), not integers of the shape {labels.shape}; of values "
            "use mse or mae"
        )
    return name
