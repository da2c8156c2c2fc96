"""The gradient of the upper level: how the validation loss changes with the architecture, weights following it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[], Tensor]

_STEP = 0.01  # of the finite difference, as a norm: DARTS, footnote 2


def first_order(validation: Loss, archs: Sequence[Tensor]) -> list[Tensor]:
    """The gradient with the weights as they are (DARTS, equation 6 with a learning rate of 0).

    Args:
        validation: the loss, from the parameters as they stand.
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
    """The gradient with the weights after a step of gradient descent on the training loss (DARTS, equations 6 to 8).

    ``d L_val(w') / d a  -  rate * (d L_train(w+) / d a - d L_train(w-) / d a) / (2 e)`` with ``w'`` as ``w`` after the
    step and ``w+-`` is ``w +- e * d L_val(w') / d w'``. The weights are as before when it returns.

    Args:
        training: the lower level's loss, from the parameters as they stand.
        validation: the upper level's.
        weights: of the lower level.
        archs: the architecture parameters.
        rate: of the step.
    """
    before = [weight.detach().clone() for weight in weights]
    descent = _gradients(training(), weights)
    try:
        _move(weights, before, descent, -rate)
        found = _gradients(validation(), [*archs, *weights])
        direct, ahead = found[: len(archs)], found[len(archs) :]
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in ahead))
        if not norm:
            return direct  # the weights do not matter to the validation loss
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
