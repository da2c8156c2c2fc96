"""The terms of sums over slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hwnas.spaces.slots import needed

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op
    from hwnas.spaces.space import Space


def terms_of(
    space: Space, cost: Callable[[str, Op], float]
) -> tuple[tuple[tuple[int, ...], ...], tuple[npt.NDArray[np.float64], ...]]:
    """For each slot the columns that it reads, and its op's cost by their values; 0 if it is not needed."""
    known: dict[tuple[str, Op | None], float] = {}
    axes, arrays = [], []
    for slot in space.slots:
        ops = space.slot_ops(slot)
        known[slot.group, None] = 0.0
        for op in ops.flat:
            if (slot.group, op) not in known:
                known[slot.group, op] = 0.0 if op.free else float(cost(slot.group, op))
        array = np.array([known[slot.group, op] for op in ops.flat], np.float64).reshape(ops.shape)
        names = (*slot.variables, *(name for name in slot.needed_by if name not in slot.variables))
        array = array.reshape(*array.shape, *[1] * (len(names) - array.ndim))
        mask = needed(slot.needed, tuple(space.variable(name).values for name in slot.needed_by))
        order = [slot.needed_by.index(name) for name in names if name in slot.needed_by]
        places = [mask.shape[slot.needed_by.index(name)] if name in slot.needed_by else 1 for name in names]
        arrays.append(array * mask.transpose(order).reshape(places))
        axes.append(tuple(space.column[name] for name in names))
    return tuple(axes), tuple(arrays)
