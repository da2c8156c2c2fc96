"""Losses on labels: cross entropy or focal loss, with weights for imbalanced classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

LossName = Literal["cross-entropy", "focal"]


class Loss(Protocol):
    """The mean loss of a batch on its labels."""

    def __call__(self, logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: ``(n, classes)``.
            labels: of the task.
            smoothing: label smoothing.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLoss:
    """The mean loss of a batch on its classes.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryLoss:
    """The mean loss of a batch on labels that are independent of each other, over images and classes.

    Attributes:
        name: name of the loss; "cross-entropy" is the binary cross entropy.
        gamma: exponent of the focal loss; 0 gives the cross entropy.
        weights: weight ``(classes,)`` of each class where it is present, as `pos_weight` in
            `torch.nn.functional.binary_cross_entropy_with_logits`; None for 1.
    """

    name: LossName = "cross-entropy"
    gamma: float = 2.0
    weights: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Compute the loss, a scalar.

        With focal loss (Lin et al. 2017, eq. 4) the term of class c, whose label is y, is
        ``-weight[c] * y * (1 - p) ** gamma * log p - (1 - y) * p ** gamma * log(1 - p)``.

        Args:
            logits: ``(n, classes)``.
            labels: probabilities that the classes are present, ``(n, classes)``.
            smoothing: label smoothing: labels are moved towards 0.5 by this fraction.
        """
        logits = logits.float()
        present = (1 - smoothing) * labels.to(logits.dtype) + smoothing / 2
        with_it, without = -functional.logsigmoid(logits), -functional.logsigmoid(-logits)
        if self.name == "focal":
            tiny = torch.finfo(logits.dtype).tiny  # for gamma < 1, x ** gamma has an infinite slope at 0
            with_it = with_it * logits.neg().sigmoid().clamp_min(tiny) ** self.gamma
            without = without * logits.sigmoid().clamp_min(tiny) ** self.gamma
        if self.weights is not None:
            with_it = with_it * self.weights.to(logits)
        return (present * with_it + (1 - present) * without).mean()
