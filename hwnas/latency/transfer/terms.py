"""The terms of networks: how often each op occurs."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hwnas.latency.transfer.known import Floats
from hwnas.spaces import Codes, Space
from hwnas.spaces.terms import terms_of


def op_terms(space: Space, codes: Codes) -> Floats:
    """How often each of `Space.distinct_ops` occurs in networks: codes ``(n, variables)`` -> ``(n, ops)``."""
    index = {op: i + 1.0 for i, op in enumerate(space.distinct_ops)}
    repeats = Counter(place.slot for place in space.places)
    axes, arrays = terms_of(space, lambda _, op: index.get(op, 0.0))  # 0: no op, or one that costs nothing
    counts = np.zeros((len(codes), len(index) + 1))
    rows = np.arange(len(codes))
    for slot, columns, array in zip(space.slots, axes, arrays, strict=True):
        found = array[tuple(codes[:, column] for column in columns)].astype(np.intp)
        counts[rows, found] += repeats[slot.name]  # each network has one op in a slot, so no row is listed twice
    return counts[:, 1:]
