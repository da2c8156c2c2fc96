"""Weights of the classes in the loss, and the check that a training fits its dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hwnas.data import Augmentation, Data
from hwnas.data.base import Sampler
from hwnas.data.options import Size
from hwnas.errors import InvalidValue
from hwnas.tasks.catalog import task_of


def class_weights(chosen: Literal["balanced"] | Sequence[float] | None, data: Data) -> Tensor | None:
    """Compute the weights of the classes in the loss.

    Args:
        chosen: a number for each class, in the order of `data.classes`; or "balanced"
            (`hwnas.tasks.Task.balanced_weights`).
        data: the dataset.

    Returns:
        ``(classes,)``, float32; None if `chosen` is None.

    Raises:
        InvalidValue: the number of weights is not the number of classes, or a class has no training image.
        DataError: the labels cannot be read.
    """
    if chosen is None:
        return None
    classes = len(data.classes)
    if chosen == "balanced":
        task, labels = task_of(data.task), data.train_labels()
        counts = task.counts(labels, classes)
        check_counts(counts, data)
        return task.balanced_weights(counts, len(labels))
    if len(chosen) != classes:
        raise InvalidValue(f"class_weights has {len(chosen)} numbers, but {data.name} has {classes} classes")
    return torch.tensor(chosen, dtype=torch.float32)


def check_fit(
    data: Data,
    *,
    weights: Literal["balanced"] | Sequence[float] | None,
    sampler: Sampler,
    augmentation: Augmentation,
    resolution: Size | None = None,
) -> None:
    """Reject training settings that the dataset does not support, before other work is done.

    If the sampler or the augmentation is not the default, load a batch of one image (two if images are mixed), of
    the size `resolution` or, if None, of the data's own.

    Raises:
        InvalidValue: the weights do not match the classes, or the dataset does not support the sampler or augmentation.
        DataError: an image cannot be read.
    """
    class_weights(weights, data)
    if sampler != "shuffled" or augmentation != Augmentation():
        count = 2 if augmentation.mixes else 1
        size = resolution or data.resolution
        data.train_batch(0, count, size, seed=0, augmentation=augmentation, sampler=sampler)


def check_counts(counts: Tensor, data: Data) -> None:
    """Reject classes without training images.

    Args:
        counts: number of training images per class, ``(classes,)``.
        data: the dataset.

    Raises:
        InvalidValue: a class has no training image.
    """
    empty = [name for name, count in zip(data.classes, counts.tolist(), strict=True) if not count]
    if empty:
        raise InvalidValue(
            f"{len(empty)} of {len(data.classes)} classes of {data.name} have no training image (the first is "
            f"{empty[0]}): weights cannot be balanced; add images, remove the class, or list class_weights as numbers"
        )
