"""Sorting the channels inside blocks by importance.

A narrower block keeps the first channels. Before narrower blocks are trained, the most important channels are moved to
the front (Cai et al. 2020, section 3.4). The importance of a channel is the L1 norm of the weights that read it.
Sorting does not change the outputs of the largest network or of any other network trained so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from hwnas.spaces import Op, Space
from hwnas.spaces.kinds import KINDS
from hwnas.supernet.network import Supernet

Orders = dict[str, list[tuple[int, Tensor]]]


def channel_orders(supernet: Supernet, trained: Space) -> Orders:
    """Compute the order in which to sort the slices of each tensor of a supernet.

    Args:
        supernet: its weights determine the importance.
        trained: space of the networks trained so far. Each of them keeps its set of channels, so channels are sorted
            only between adjacent widths of this space.

    Returns:
        name in the supernet's state -> axis and order, most important channel first.
    """
    state, orders = supernet.state_dict(), Orders()
    of_slots = [(slot, op) for slot in supernet.space.slots for op in supernet.space.slot_ops(slot).flat]
    together: dict[tuple[str, str], list[Op]] = {}
    for slot, op in of_slots:
        if op is not None and KINDS[op.kind].inner:
            together.setdefault((slot.name, op.kind), []).append(op)
    slots = {slot.name: slot for slot in supernet.space.slots}
    for (name, kind), ops in together.items():
        for inside in KINDS[kind].inner:
            prefix = f"slots.{supernet.name_of(name, ops[0])}.shared."
            if len({inside.width(op) for op in ops}) == 1 or prefix + inside.reader not in state:
                continue
            open_ops = [op for op in trained.slot_ops(slots[name]).flat if op is not None and op.kind == kind]
            kept = {inside.width(op) for op in open_ops}
            weight = state[prefix + inside.reader]
            order = _descending(weight.abs().sum(dim=[d for d in range(weight.dim()) if d != 1]), kept)
            for tensor, axis in [(n, 0) for n in inside.writers] + [(n, 1) for n in (inside.reader, *inside.also_read)]:
                if prefix + tensor in state:
                    orders.setdefault(prefix + tensor, []).append((axis, order))
    return orders


def reorder(state: Mapping[str, Tensor], orders: Orders) -> None:
    """Reorder the slices of tensors in place, by tensor name; names that are not in the state are ignored."""
    with torch.no_grad():
        for name in orders.keys() & state.keys():
            for axis, order in orders[name]:
                state[name].copy_(state[name].index_select(axis, order))


def _descending(importance: Tensor, boundaries: set[int]) -> Tensor:
    """Sort channels by importance, only between boundaries: ``(channels,)`` -> indices ``(channels,)``."""
    edges = sorted({0, len(importance), *boundaries})
    parts = [start + importance[start:stop].argsort(descending=True, stable=True) for start, stop in pairwise(edges)]
    return torch.cat(parts)
