"""Gradients of the upper level: of the validation loss by the architecture, at current or at updated weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[], Tensor]

_STEP = 0.01  # norm of the step of the finite difference: DARTS, footnote 2


def first_order(validation: Loss, archs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient at the current weights (DARTS, equation 6 with a learning rate of 0).

    Args:
        validation: computes the loss at the current parameters.
        archs: the architecture parameters.
    """
    return _gradients(validation(), archs)


def second_order(
    training: Loss,
    validation: Loss,
    weights: Sequence[Tensor],
    archs: Sequence[Tensor],
    rate: float,
) -> list[Tensor]:
    """The gradient at the weights after a step of gradient descent on the training loss (DARTS, equations 6 to 8).

    ``d L_val(w') / d a  -  rate * (d L_train(w+) / d a - d L_train(w-) / d a) / (2 e)``, where ``w'`` is ``w`` after
    the step and ``w+-`` is ``w +- e * d L_val(w') / d w'``. The weights are restored before it returns.

    Args:
        training: computes the lower level's loss at the current parameters.
        validation: computes the upper level's loss.
        weights: of the lower level.
        archs: the architecture parameters.
        rate: learning rate of the step.
    """
    before = [weight.detach().clone() for weight in weights]
    descent = _gradients(training(), weights)
    try:
        _move(weights, before, descent, -rate)
        found = _gradients(validation(), [*archs, *weights])
        direct, ahead = found[: len(archs)], found[len(archs) :]
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in ahead))
        if not norm:
            return direct  # the validation loss does not depend on the weights
        step = _STEP / norm
        _move(weights, before, ahead, step)
        plus = _gradients(training(), archs)
        _move(weights, before, ahead, -step)
        minus = _gradients(training(), archs)
    finally:
        _move(weights, before, descent, 0.0)
    return [d - rate * (p - m) / (2 * step) for d, p, m in zip(direct, plus, minus, strict=True)]


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@torch.no_grad()
def _move(weights: Sequence[Tensor], origin: Sequence[Tensor], direction: Sequence[Tensor], length: float) -> None:
    for weight, start, along in zip(weights, origin, direction, strict=True):
        weight.copy_(start + length * along if length else start)
