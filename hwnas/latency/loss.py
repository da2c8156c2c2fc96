"""Latency as a term of a loss: the exact expectation over a distribution of networks, and penalties on it.

Under independent distributions of a space's variables, the expectation of a sum over slots is the sum of expectations,
and that of a slot is its array contracted with the product of its variables' probabilities: nothing is sampled.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue, UnknownName
from hwnas.latency.model import LatencyModel
from hwnas.spaces import SlotSum, Space

Probabilities = Mapping[str, Tensor]

_LETTERS = "abcdefghijklmnopqrstuvwxy"


class LatencyLoss(nn.Module):
    """Expected latencies of a space's networks, on one target or several, for any training loop of PyTorch.

    Args:
        models: latency models of the same space.

    Raises:
        InvalidValue: no model, or models of different spaces.
    """

    def __init__(self, *models: LatencyModel) -> None:
        super().__init__()
        if not models:
            raise InvalidValue("a latency loss needs at least one latency model")
        names = [model.space.name for model in models]
        if any(model.space.choices != models[0].space.choices for model in models) or len(set(names)) > 1:
            raise InvalidValue(f"the latency models of a loss are of one space, not of {', '.join(names)}")
        self.targets = tuple(model.target for model in models)
        self.expectations = nn.ModuleList(Expectation(model.space, model.total) for model in models)

    def forward(self, probabilities: Probabilities) -> Tensor:
        """Expected latencies in milliseconds.

        Args:
            probabilities: name of a variable -> probabilities of its values, ``(choices,)`` or ``(batch, choices)``.
                Variables with a single value may be left out.

        Returns:
            ``(targets,)`` or ``(batch, targets)``, in the order of `targets`; at least in single precision, also where
            autocast is on, because latencies differ by less than half precision can tell.

        Raises:
            UnknownName: the space has no such variable.
            InvalidValue: a variable is missing; probabilities have another shape, do not sum to 1, are negative, NaN.
        """
        return torch.stack([expectation(probabilities) for expectation in self.expectations], dim=-1)


class Expectation(nn.Module):
    """The expectation of a sum over slots under independent distributions of the variables.

    Args:
        space: whose variables are meant.
        function: the sum.
    """

    def __init__(self, space: Space, function: SlotSum) -> None:
        super().__init__()
        self.space, self.constant = space, function.constant
        self.axes: list[tuple[str, ...]] = []
        # No buffers: a module that is cast to half precision would round milliseconds.
        self.arrays: list[Tensor] = []
        self._moved: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
        for axes, array in zip(function.axes, function.arrays, strict=True):
            kept = [axis for axis, length in zip(axes, array.shape, strict=True) if length > 1]
            self.axes.append(tuple(space.variables[axis].name for axis in kept))
            self.arrays.append(torch.tensor(array.reshape([length for length in array.shape if length > 1])))

    def forward(self, probabilities: Probabilities) -> Tensor:
        """Probabilities as `LatencyLoss` takes them -> the expectation, a scalar or ``(batch,)``."""
        given = check_probabilities(self.space, probabilities)
        some = max(given.values(), key=Tensor.dim, default=torch.ones(1))  # none, where nothing is left to choose
        dtype = torch.promote_types(some.dtype, torch.float32)
        with torch.autocast(some.device.type, enabled=False):
            total = torch.full(some.shape[:-1], self.constant, dtype=dtype, device=some.device)
            for number, names in enumerate(self.axes):
                array = self._array(number, some.device, dtype)
                total = total + contract(array, [given[name].to(dtype) for name in names])
        return total

    def _array(self, number: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        if (number, device, dtype) not in self._moved:
            self._moved[number, device, dtype] = self.arrays[number].to(device, dtype)
        return self._moved[number, device, dtype]


def contract(array: Tensor, probabilities: Sequence[Tensor]) -> Tensor:
    """An array with one axis a variable, summed with the product of their probabilities.

    Args:
        array: ``(choices of the first, choices of the second, ..., *rest)``.
        probabilities: ``(choices,)`` or ``(batch, choices)`` for each variable.

    Returns:
        ``(*rest)``, or ``(batch, *rest)`` if any are batched.
    """
    axes = _LETTERS[: array.dim()]
    read, rest = axes[: len(probabilities)], axes[len(probabilities) :]
    batch = "z" if any(p.dim() == 2 for p in probabilities) else ""
    terms = [("z" if p.dim() == 2 else "") + letter for p, letter in zip(probabilities, read, strict=True)]
    return torch.einsum(f"{','.join([axes, *terms])}->{batch}{rest}", array, *probabilities)


def check_probabilities(space: Space, probabilities: Probabilities) -> dict[str, Tensor]:
    """Probabilities of all variables of a space that have a choice, checked.

    Raises:
        UnknownName, InvalidValue: see `LatencyLoss.forward`.
    """
    for name in probabilities:
        if name not in space.column:
            raise UnknownName(f"variable of {space.name}", name, space.column)
    found: dict[str, Tensor] = {}
    batches: set[int] = set()
    for variable in space.variables:
        choices = len(variable.values)
        if variable.name not in probabilities:
            if choices > 1:
                raise InvalidValue(f"probabilities of {variable.name} are missing: {choices} values")
            continue
        given = probabilities[variable.name]
        if not isinstance(given, Tensor) or given.is_complex():
            raise InvalidValue(f"probabilities of {variable.name} are a tensor of real numbers, not {given!r}")
        if given.dim() not in (1, 2) or given.shape[-1] != choices:
            raise InvalidValue(
                f"probabilities of {variable.name} are ({choices},) or (batch, {choices}), not {tuple(given.shape)}"
            )
        # Comparisons with NaN are false.
        rows, tolerance = given.detach().reshape(-1, choices), _tolerance(given.dtype)
        good = ((rows.sum(dim=-1) - 1).abs() <= tolerance) & (rows >= -tolerance).all(dim=-1)
        if not bool(good.all()):
            raise InvalidValue(
                f"probabilities of {variable.name} are at least 0 and sum to 1; a softmax gives such, not: "
                f"{rows[~good][0].tolist()}"
            )
        found[variable.name] = given
        batches |= {len(given)} if given.dim() == 2 else set()
    if len(batches) > 1:
        raise InvalidValue(f"probabilities of all variables have the same batch size, not {sorted(batches)}")
    return found


def _tolerance(dtype: torch.dtype) -> float:
    """By how much the sum of rounded probabilities may miss 1."""
    return {torch.float64: 1e-6, torch.float32: 1e-4}.get(dtype, 2e-2)


class Penalty(nn.Module, ABC):
    """Adds what latency costs to a task's loss.

    Args:
        targets_ms: the latency that is wanted on each target, ``(targets,)``, in milliseconds.

    Raises:
        InvalidValue: no target, or one that is no positive number.
    """

    def __init__(self, targets_ms: Sequence[float]) -> None:
        super().__init__()
        if not len(targets_ms):
            raise InvalidValue("a penalty needs at least one target latency")
        for target in targets_ms:
            if not (target > 0 and math.isfinite(target)):
                raise InvalidValue(f"a target latency is a positive number of milliseconds, not {target}")
        self.register_buffer("targets_ms", torch.tensor(list(targets_ms), dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Penalty:
        # What `Module.to`, `half` and the like call: a penalty moves to other devices, but half precision would round
        # its milliseconds.
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        """The task's loss, a scalar, and latencies ``(targets,)`` -> the loss that is minimised, a scalar.

        Raises:
            InvalidValue: as many latencies as there are targets are needed; logarithms take those above a microsecond.
        """
        self._check(latency_ms)
        return self._penalised(loss, latency_ms)

    def update(self, latency_ms: Tensor) -> None:
        """Told the latencies ``(targets,)`` after each epoch, for what adapts to them."""
        self._check(latency_ms)
        self._adapt(latency_ms.detach())

    def shares(self, latency_ms: Tensor) -> Tensor:
        """Latencies ``(targets,)`` as shares of what is wanted."""
        return latency_ms / self.get_buffer("targets_ms").to(latency_ms)

    @abstractmethod
    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        """What `forward` gives."""

    def _adapt(self, latency_ms: Tensor) -> None:
        """What `update` does; most adapt to nothing."""

    def _check(self, latency_ms: Tensor) -> None:
        # One latency would be held against every target, a batch summed.
        wanted = self.get_buffer("targets_ms")
        if latency_ms.shape != wanted.shape:
            raise InvalidValue(
                f"this penalty takes ({len(wanted)},) latencies, one a target, not {tuple(latency_ms.shape)}; "
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

    The paper's formula, with its constants; it knows no target. Several latencies are multiplied in.
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
        _log_us(self.get_buffer("targets_ms"))  # refuses a target whose logarithm would not be positive

    def _penalised(self, loss: Tensor, latency_ms: Tensor) -> Tensor:
        wanted = _log_us(self.get_buffer("targets_ms").to(latency_ms))
        return loss * (self.alpha * (_log_us(latency_ms) / wanted) ** self.beta).prod()


class HingePenalty(Penalty):
    """``loss + weight * max(0, latency / target - 1)``, summed over targets: nothing below the target."""

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
        weight: of the square at first; doubled after an update that leaves more than half of a violation.
        most: that it grows to.

    Raises:
        InvalidValue: as `Penalty`; or the weight is not above 0.
    """

    def __init__(self, targets_ms: Sequence[float], *, weight: float = 1.0, most: float = 100.0) -> None:
        super().__init__(targets_ms)
        if not weight > 0:
            raise InvalidValue(f"the weight of an augmented Lagrangian's square is above 0, not {weight}")
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
    """The logarithm of latencies in microseconds, as the papers take them.

    Raises:
        InvalidValue: less than a microsecond: the logarithm would not be positive.
    """
    if bool((latency_ms <= 1e-3).any()):
        raise InvalidValue(
            f"a logarithmic penalty takes latencies above a microsecond, not {latency_ms.detach().tolist()} ms; "
            "use linear, hinge or lagrangian"
        )
    return (1e3 * latency_ms).log()
