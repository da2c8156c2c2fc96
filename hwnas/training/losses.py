"""The loss on labels: cross entropy or focal loss, with weights for imbalanced classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.data import Augmentation, Data
from hwnas.data.base import Sampler
from hwnas.data.options import Size
from hwnas.errors import InvalidValue

LossName = Literal["cross-entropy", "focal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLoss:
    """The mean loss of a batch on its labels.

    The sum of the weighted losses is divided by the number of images, not by the sum of the batch's weights as in
    `torch.nn.functional.cross_entropy`. The mean over the parts of a batch then equals the mean over the whole batch,
    and the result does not depend on the number of processes.

    Attributes:
        name: name of the loss.
        gamma: exponent of the focal loss; 0 gives the cross entropy.
        weights: class weights ``(classes,)``; None for equal weights.
    """

    name: LossName = "cross-entropy"
    gamma: float = 2.0
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Compute the loss, a scalar.

        With focal loss (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 5) the term of class c is
        ``-weight[c] * share[c] * (1 - p[c]) ** gamma * log p[c]``.

        Args:
            logits: ``(n, classes)``.
            labels: ``(n,)``, or class probabilities ``(n, classes)``.
            smoothing: label smoothing: fraction of each label that is distributed evenly over all classes.
        """
        if self.name == "cross-entropy" and self.weights is None:
            return functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        classes = logits.shape[1]
        logs = logits.float().log_softmax(dim=1)
        shares = labels.to(logs.dtype) if labels.dim() == 2 else functional.one_hot(labels, classes).to(logs.dtype)
        terms = -((1 - smoothing) * shares + smoothing / classes) * logs
        if self.name == "focal":
            # 1 - p computed from log p is accurate for p near 1. For gamma < 1, x ** gamma has an infinite slope at 0.
            terms = terms * (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny) ** self.gamma
        if self.weights is not None:
            terms = terms * self.weights.to(logs)
        return terms.sum(dim=1).mean()


def class_weights(chosen: Literal["balanced"] | Sequence[float] | None, data: Data) -> Tensor | None:
    """Compute the weights of the classes in the loss.

    Args:
        chosen: a number for each class, in the order of `data.classes`; or "balanced": ``n / (classes * n_c)``, where
            n_c of the n training images belong to class c (King and Zeng 2001; as in scikit-learn's
            `compute_class_weight`).
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
        counts = torch.bincount(data.train_labels(), minlength=classes)
        check_counts(counts, data)
        return (counts.sum() / (classes * counts)).float()
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
