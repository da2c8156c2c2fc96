"""Sorting the channels inside blocks by importance.

A narrower block keeps the first channels. Before narrower ones are trained, the most important channels are moved to
the front (Cai et al. 2020, section 3.4): importance is the L1 norm of the weights that read a channel. The largest
network computes the same before and after, and so does every network that was trained until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from hwnas.nn.blocks import module_name
from hwnas.spaces import Space
from hwnas.spaces.kinds import KINDS
from hwnas.supernet.network import Supernet

Orders = dict[str, list[tuple[int, Tensor]]]


def channel_orders(supernet: Supernet, trained: Space) -> Orders:
    """In which order the slices of each tensor of a supernet should stand.

    Args:
        supernet: its weights decide.
        trained: the networks that were trained so far; each keeps the channels that it has, so channels are sorted
            between the widths that occur in it.

    Returns:
        name in the supernet's state -> axis and order, the most important first.
    """
    state, orders = supernet.state_dict(), Orders()
    for slot in supernet.space.slots:
        ops = [op for op in supernet.space.slot_ops(slot).flat if op is not None]
        for inside in KINDS[ops[0].kind].inner if ops else ():
            prefix = f"slots.{module_name(slot.name)}.shared."
            if len({inside.width(op) for op in ops}) == 1 or prefix + inside.reader not in state:
                continue
            kept = {inside.width(op) for op in trained.slot_ops(slot).flat if op is not None}
            weight = state[prefix + inside.reader]
            order = _descending(weight.abs().sum(dim=[d for d in range(weight.dim()) if d != 1]), kept)
            for name, axis in [(n, 0) for n in inside.writers] + [(n, 1) for n in (inside.reader, *inside.also_read)]:
                if prefix + name in state:
                    orders.setdefault(prefix + name, []).append((axis, order))
    return orders


def reorder(state: Mapping[str, Tensor], orders: Orders) -> None:
    """Put the slices of tensors, by name, into their order, in place; names that are not there are passed over."""
    with torch.no_grad():
        for name in orders.keys() & state.keys():
            for axis, order in orders[name]:
                state[name].copy_(state[name].index_select(axis, order))


def _descending(importance: Tensor, boundaries: set[int]) -> Tensor:
    """Order of the channels by importance, sorted between boundaries only: ``(channels,)`` -> ``(channels,)``."""
    edges = sorted({0, len(importance), *boundaries})
    parts = [start + importance[start:stop].argsort(descending=True, stable=True) for start, stop in pairwise(edges)]
    return torch.cat(parts)
