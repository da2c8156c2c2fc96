"""Limits on the number of skip connections of a cell; differentiable search selects too many of them.

Liang et al., "DARTS+: Improved Differentiable Architecture Search with Early Stopping", 2019: skip connections gain
probability because they train the fastest, and the search should end before they dominate a cell.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwnas.spaces import Op, Slot, SlotSum, Space
from hwnas.spaces.kinds import KINDS

_HALF = 0.5


def skip_limits(space: Space) -> list[tuple[SlotSum, float]]:
    """For each kind of cell, the number of its edges that are skip connections, and half of its edges.

    A space without cells has none.
    """
    slots = {slot.name: slot for slot in space.slots}
    cells: dict[str, dict[object, Slot]] = {}
    for place in space.wiring or ():
        slot = slots[place.slot]
        merges = any(op is not None and KINDS[op.kind].merges for op in space.slot_ops(slot).flat)
        if merges or set(slot.variables) <= {space.reads.size}:
            continue  # not an edge with a choice
        # Cells of the same kind differ in the shapes on their edges, but not in the positions of skips and empty ops.
        what = tuple("skip" if op is None else "none" if op.free else "op" for op in space.slot_ops(slot).flat)
        cell, _, edge = place.name.rpartition(".")
        cells.setdefault(cell, {})[edge, slot.variables, what] = slot
    kinds = {tuple(edges): list(edges.values()) for edges in cells.values()}
    largest = space.encode([space.largest])
    limits = []
    for edges in kinds.values():
        all_edges = _count(space, edges, lambda op: op is None or not op.free)
        limits.append((_count(space, edges, lambda op: op is None), _HALF * float(all_edges(largest)[0])))
    return limits


def _count(space: Space, edges: list[Slot], what: Callable[[Op | None], bool]) -> SlotSum:
    arrays = []
    for slot in edges:
        ops = space.slot_ops(slot)
        arrays.append(np.array([float(what(op)) for op in ops.flat]).reshape(ops.shape))
    axes = tuple(tuple(space.column[name] for name in slot.variables) for slot in edges)
    return SlotSum(constant=0.0, axes=axes, arrays=tuple(arrays))
