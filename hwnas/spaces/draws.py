"""Random draws from a space."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from hwnas.spaces.space import Codes, Space


def distinct(space: Space, count: int, *, seed: int, without: Container[bytes] = ()) -> Codes:
    """Different random networks, without repetition.

    Args:
        space: to draw from; it must have as many networks.
        count: rows of the result, ``(count, variables)``.
        seed: of the draw.
        without: bytes of codes to exclude.
    """
    rows: dict[bytes, Codes] = {}
    batch = 0
    while len(rows) < count:
        for row in space.sample(count, seed=(seed, batch)):
            if row.tobytes() not in without and len(rows) < count:
                rows.setdefault(row.tobytes(), row)
        batch += 1
    return np.stack(list(rows.values()))
