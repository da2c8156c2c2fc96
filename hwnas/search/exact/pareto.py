"""Pareto sets in any number of dimensions. Every objective is minimised.

Dominated points are removed in two steps. A grid over all dimensions but the last, with the minimum of the last in
each cell, identifies most dominated points with one lookup each; the rest are compared with each other in blocks,
the best sums first (Börzsönyi et al., "The Skyline Operator", ICDE 2001; Chomicki et al., "Skyline with Presorting",
ICDE 2003).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_CELLS = {2: 4096, 3: 256, 4: 48, 5: 20}  # of the grid, along each of its dimensions, by the number of objectives
_FEW = 256  # points that are compared without a grid
COMBINATIONS = 2_000_000  # combinations of two sets at a time: some tens of megabytes
_BLOCK = 512  # points compared with the front at once


def pareto(points: Floats) -> Indices:
    """The points that no other dominates.

    A point dominates another if it is at most as large in every dimension and smaller in one; of equal points the
    first is kept.

    Args:
        points: ``(n, dimensions)``, finite.

    Returns:
        indices of the front, by ascending first dimension.
    """
    if points.shape[1] == 1:
        return np.array([points[:, 0].argmin()] if len(points) else [], np.intp)
    kept = _undominated_by_cells(points)
    values = points[kept]
    front = _staircase(values) if points.shape[1] == 2 else _blocks(values)
    chosen: Indices = kept[front]
    return chosen[np.lexsort(points[chosen].T[::-1])]


def merged(a: Floats, b: Floats, combine: tuple[np.ufunc, ...]) -> tuple[Floats, Indices, Indices]:
    """The Pareto set of all combinations of two sets.

    Args:
        a: ``(n, dimensions)``.
        b: ``(m, dimensions)``.
        combine: for each dimension the merging operation: `numpy.add` or `numpy.maximum`.

    Returns:
        the points, and for each the row in `a` and in `b` that it came from.
    """
    if not len(a) or not len(b):
        return np.zeros((0, len(combine))), np.zeros(0, np.intp), np.zeros(0, np.intp)
    rows = max(1, COMBINATIONS // len(b))
    parts, left, right = [], [], []
    for start in range(0, len(a), rows):
        block = a[start : start + rows]
        values = np.stack([f.outer(block[:, d], b[:, d]).reshape(-1) for d, f in enumerate(combine)], axis=1)
        front = pareto(values)
        parts.append(values[front])
        left.append(start + front // len(b))
        right.append(front % len(b))
    points, i, j = np.concatenate(parts), np.concatenate(left), np.concatenate(right)
    if len(parts) > 1:
        front = pareto(points)
        points, i, j = points[front], i[front], j[front]
    return points, i, j


def _undominated_by_cells(points: Floats) -> Indices:
    """Remove points that are dominated by a point in a cell that is lower in every dimension: ascending indices."""
    everything = np.arange(len(points))
    dimensions = points.shape[1] - 1
    cells = _CELLS.get(points.shape[1], 8)
    if len(points) <= _FEW or points.shape[1] > 6:
        return everything
    low, high = points[:, :dimensions].min(axis=0), points[:, :dimensions].max(axis=0)
    width = np.where(high > low, high - low, 1.0) / cells
    places = [((points[:, d] - low[d]) / width[d]).astype(np.intp) for d in range(dimensions)]
    shape = tuple(int(place.max()) + 1 for place in places)
    least = np.full(shape, np.inf)
    np.minimum.at(least, tuple(places), points[:, -1])
    for d in range(dimensions):
        np.minimum.accumulate(least, axis=d, out=least)
    below = np.full(tuple(n + 1 for n in shape), np.inf)  # the minimum in cells that are lower in every dimension
    below[(slice(1, None),) * dimensions] = least
    kept: Indices = everything[points[:, -1] < below[tuple(places)]]
    return kept


def _staircase(points: Floats) -> Indices:
    """The front in two dimensions: each point must be lower than all earlier ones."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    least_before = np.concatenate([[np.inf], np.minimum.accumulate(points[order, 1])[:-1]])
    front: Indices = order[points[order, 1] < least_before]
    return front


def _blocks(points: Floats) -> Indices:
    """The front in more dimensions: points that are not dominated by points with smaller sums of ranks."""
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in points.T], axis=1)
    # A point dominates only points whose ranks have a larger sum; equal ones keep their order.
    order = np.argsort(ranks.sum(axis=1), kind="stable")
    front = np.zeros(0, np.intp)
    while len(order):
        block, order = order[:_BLOCK], order[_BLOCK:]
        values = ranks[block]
        dominated = (values[None] <= values[:, None]).all(axis=2)  # row: by column
        earlier = np.tri(len(block), k=-1, dtype=bool)
        new = block[~(dominated & earlier).any(axis=1)]
        front = np.concatenate([front, new])
        order = order[~_dominated(ranks[order], ranks[new])]
    return front


def _dominated(points: Indices, by: Indices) -> npt.NDArray[np.bool_]:
    """Mask of points for which another one is at most as large in every dimension: ``(n,)``."""
    found = np.zeros(len(points), bool)
    rows = max(1, 4_000_000 // max(1, len(by)))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        below = np.ones((len(block), len(by)), bool)
        for d in range(points.shape[1]):
            below &= by[:, d] <= block[:, d, None]
        found[start : start + rows] = below.any(axis=1)
    return found
