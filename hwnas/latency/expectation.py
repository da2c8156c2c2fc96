"""The exact expectation of a sum over slots under independent distributions of its variables.

The expectation of a sum over slots is the sum of expectations, and that of a slot is its array contracted with the
product of its variables' probabilities: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces import SlotSum, Space

Probabilities = Mapping[str, Tensor]


_LETTERS = "abcdefghijklmnopqrstuvwxy"


class Expectation(nn.Module):
    """The expectation of a sum over slots under independent distributions of the variables.

    Args:
        space: the space of the variables.
        function: the sum.
    """

    def __init__(self, space: Space, function: SlotSum) -> None:
        super().__init__()
        self.space, self.constant = space, function.constant
        self.axes: list[tuple[str, ...]] = []
        # Not buffers: casting the module to half precision would round milliseconds.
        self.arrays: list[Tensor] = []
        self._moved: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
        for axes, array in zip(function.axes, function.arrays, strict=True):
            kept = [axis for axis, length in zip(axes, array.shape, strict=True) if length > 1]
            self.axes.append(tuple(space.variables[axis].name for axis in kept))
            self.arrays.append(torch.tensor(array.reshape([length for length in array.shape if length > 1])))

    def forward(self, probabilities: Probabilities) -> Tensor:
        """Probabilities as `LatencyLoss` takes them -> the expectation, a scalar or ``(batch,)``."""
        given = check_probabilities(self.space, probabilities)
        some = max(given.values(), key=Tensor.dim, default=torch.ones(1))  # empty if no variable has a choice
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
    """An array with one axis per variable, contracted with the product of their probabilities.

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
    """Checked probabilities of all variables of a space that have a choice.

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
            raise InvalidValue(f"probabilities of {variable.name} must be a tensor of real numbers, not {given!r}")
        if given.dim() not in (1, 2) or given.shape[-1] != choices:
            raise InvalidValue(
                f"probabilities of {variable.name} must have the shape ({choices},) or (batch, {choices}), "
                f"not {tuple(given.shape)}"
            )
        # Comparisons with NaN are false.
        rows, tolerance = given.detach().reshape(-1, choices), _tolerance(given.dtype)
        good = ((rows.sum(dim=-1) - 1).abs() <= tolerance) & (rows >= -tolerance).all(dim=-1)
        if not bool(good.all()):
            raise InvalidValue(
                f"probabilities of {variable.name} must be at least 0 and sum to 1, as from a softmax, not: "
                f"{rows[~good][0].tolist()}"
            )
        found[variable.name] = given
        batches |= {len(given)} if given.dim() == 2 else set()
    if len(batches) > 1:
        raise InvalidValue(f"probabilities of all variables must have the same batch size, not {sorted(batches)}")
    return found


def _tolerance(dtype: torch.dtype) -> float:
    """Tolerance of the sum of rounded probabilities."""
    return {torch.float64: 1e-6, torch.float32: 1e-4}.get(dtype, 2e-2)
