"""Penalties: terms for expected latencies in a task's loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue


class Penalty(nn.Module, ABC):
    """Adds a latency penalty to a task's loss.

    Args:
        targets_ms: target latencies, ``(targets,)``, in milliseconds.

    Raises:
        InvalidValue: there are no targets, or one is not a positive number.
    """

    def __init__(self, targets_ms: Sequence[float]) -> None:
        super().__init__()
        if not len(targets_ms):
            raise InvalidValue("a penalty needs at least one target latency")
        for target in targets_ms:
            if not (target > 0 and math.isfinite(target)):
                raise InvalidValue(f"a target latency must be a positive number of milliseconds, not {target}")
        self.register_buffer("targets_ms", torch.tensor(list(targets_ms), dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Penalty:
        # Called by `Module.to`, `half` etc.: a penalty moves to other devices but keeps its dtype, because half
        # precision would round the milliseconds.
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        """The task's loss, a scalar, and latencies ``(targets,)`` -> the loss to minimise, a scalar.

        Raises:
            InvalidValue: the numbers of latencies and targets differ, or a latency is too small for its logarithm.
        """
        self._check(latency_ms)
        return self._penalised(loss, latency_ms)

    def update(self, latency_ms: Tensor) -> None:
        """Callback with the latencies ``(targets,)``, invoked after each epoch, for penalties that adapt to them."""
        self._check(latency_ms)
        self._adapt(latency_ms.detach())

    def shares(self, latency_ms: Tensor) -> Tensor:
        """Latencies ``(targets,)`` relative to the targets."""
        return latency_ms / self.get_buffer("targets_ms").to(latency_ms)

    @abstractmethod
    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        """The result of `forward`."""

    def _adapt(self, latency_ms: Tensor) -> None:
        """The work of `update`; most penalties do nothing."""

    def _check(self, latency_ms: Tensor) -> None:
        # Otherwise one latency would be broadcast to every target, and a batch summed.
        wanted = self.get_buffer("targets_ms")
        if latency_ms.shape != wanted.shape:
            raise InvalidValue(
                f"this penalty takes ({len(wanted)},) latencies, one per target, not {tuple(latency_ms.shape)}; "
                "take the mean over a batch first"
            )


class LinearPenalty(Penalty):
    """``loss + weight * latency / target``, summed over targets (Cai et al., "ProxylessNAS", ICLR 2019, equation 3)."""

    def __init__(self, targets_ms: Sequence[float], *, weight: float = 0.1) -> None:
        super().__init__(targets_ms)
        self.weight = weight

    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        return loss + self.weight * self.shares(latency_ms).sum()


class LogPenalty(Penalty):
    """``loss * alpha * log(latency in microseconds) ** beta`` (Wu et al., "FBNet", CVPR 2019, equation 2).

    The paper's formula with its constants; it ignores the targets. Several latencies are multiplied.
    """

    def __init__(self, targets_ms: Sequence[float], *, alpha: float = 0.2, beta: float = 0.6) -> None:
        super().__init__(targets_ms)
        self.alpha, self.beta = alpha, beta

    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        return loss * (self.alpha * _log_us(latency_ms) ** self.beta).prod()


class MulLogPenalty(Penalty):
    """``loss * alpha * (log(latency) / log(target)) ** beta``, in microseconds (ProxylessNAS's code: ``mul#log``)."""

    def __init__(self, targets_ms: Sequence[float], *, alpha: float = 1.0, beta: float = 0.6) -> None:
        super().__init__(targets_ms)
        self.alpha, self.beta = alpha, beta
        _log_us(self.get_buffer("targets_ms"))  # rejects a target whose logarithm is not positive

    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        wanted = _log_us(self.get_buffer("targets_ms").to(latency_ms))
        return loss * (self.alpha * (_log_us(latency_ms) / wanted) ** self.beta).prod()


class HingePenalty(Penalty):
    """``loss + weight * max(0, latency / target - 1)``, summed over targets: zero below the target."""

    def __init__(self, targets_ms: Sequence[float], *, weight: float = 10.0) -> None:
        super().__init__(targets_ms)
        self.weight = weight

    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        return loss + self.weight * (self.shares(latency_ms) - 1).clamp(min=0).sum()


class AugmentedLagrangian(Penalty):
    """A hard target: the multiplier of ``latency / target <= 1`` grows until it is met.

    ``loss + (max(0, multiplier + weight * g) ** 2 - multiplier ** 2) / (2 * weight)`` with ``g = latency / target - 1``
    (Nocedal and Wright, "Numerical Optimization", 2006, equations 17.55 and 17.58, summed over targets).

    Args:
        targets_ms: as `Penalty`.
        weight: initial weight of the square; doubled after an update that leaves more than half of a violation.
        most: largest weight.

    Raises:
        InvalidValue: as `Penalty`; or the weight is not above 0.
    """

    def __init__(self, targets_ms: Sequence[float], *, weight: float = 1.0, most: float = 100.0) -> None:
        super().__init__(targets_ms)
        if not weight > 0:
            raise InvalidValue(f"the weight of an augmented Lagrangian's square must be above 0, not {weight}")
        self.most = most
        wanted = self.get_buffer("targets_ms")
        self.register_buffer("multipliers", torch.zeros_like(wanted))
        self.register_buffer("weights", torch.full_like(wanted, weight))
        self.register_buffer("violations", torch.full_like(wanted, math.inf))

    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        multipliers, weights = (self.get_buffer(name).to(latency_ms) for name in ("multipliers", "weights"))
        pushed = (multipliers + weights * (self.shares(latency_ms) - 1)).clamp(min=0)
        return loss + ((pushed**2 - multipliers**2) / (2 * weights)).sum()

    def _adapt(self, latency_ms: Tensor) -> None:
        multipliers, weights, before = (self.get_buffer(n) for n in ("multipliers", "weights", "violations"))
        over = self.shares(latency_ms).to(multipliers) - 1
        multipliers.add_(weights * over).clamp_(min=0)
        violations = over.clamp(min=0)
        weights.copy_(torch.where(violations > before / 2, (2 * weights).clamp(max=self.most), weights))
        before.copy_(violations)


PENALTIES: dict[str, type[Penalty]] = {
    "linear": LinearPenalty,
    "log": LogPenalty,
    "mul-log": MulLogPenalty,
    "hinge": HingePenalty,
    "lagrangian": AugmentedLagrangian,
}


def _log_us(latency_ms: Tensor) -> Tensor:
    """The logarithm of latencies in microseconds, as in the papers.

    Raises:
        InvalidValue: a latency is at most a microsecond: its logarithm is not positive.
    """
    if bool((latency_ms <= 1e-3).any()):
        raise InvalidValue(
            f"a logarithmic penalty requires latencies above a microsecond, not {latency_ms.detach().tolist()} ms; "
            "use linear, hinge or lagrangian"
        )
    return (1e3 * latency_ms).log()
