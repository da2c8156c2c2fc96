"""Exact Pareto fronts of a whole space, by merging the fronts of its parts.

A dominated assignment of some parts is dominated for every assignment of the other parts, because the merging
operations (sum, maximum) are monotone. So the front of all parts is a subset of the combinations of the fronts of two
halves, without approximation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwnas.progress import Progress, never, silent
from hwnas.search.exact.decompose import Decomposition, Floats, Mask
from hwnas.search.exact.pareto import merged, pareto
from hwnas.spaces import Codes, SlotFunction, Space


@dataclass(frozen=True, slots=True)
class Losses:
    """Functions to minimise, and their limits.

    Attributes:
        functions: sums and maxima over slots.
        limits: upper limit of each; infinity without a limit.
    """

    functions: tuple[SlotFunction, ...]
    limits: tuple[float, ...]

    def __call__(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> ``(n, functions)``."""
        return np.stack([f(codes) for f in self.functions], axis=1)

    @property
    def combine(self) -> tuple[np.ufunc, ...]:
        """For each function, the operation that merges the values of two parts."""
        return tuple(f.combine for f in self.functions)


_ROUNDING = 1e-9  # relative rounding error of sums in another order; the result is checked without it


@dataclass(frozen=True, slots=True)
class _Set:
    """Points ``(n, functions)`` and their assignments, ``(n, variables)``."""

    points: Floats
    codes: Codes


def exact_front(
    space: Space, losses: Losses, *, progress: Progress = silent, stop: Callable[[], bool] = never
) -> Codes | None:
    """The Pareto front of a space: ``(n, variables)``, by ascending first loss.

    Networks above a limit are excluded. Of networks with equal losses one is returned.

    Args:
        space: the space.
        losses: functions to minimise.
        progress: callback, invoked after every part.
        stop: polled as often; when it returns True, the result is None, because the front of some parts is not a front.

    Raises:
        InvalidValue: the space cannot be decomposed into enumerable parts.
    """
    parts = Decomposition.of(space, *losses.functions)
    tables = [parts.tables(f) for f in losses.functions]
    distinct = parts.distinct()
    constant = np.array([parts.constant(f) for f in losses.functions])
    limits = np.array([room(*each) for each in zip(tables, losses.combine, losses.limits, strict=True)])

    def own(p: int) -> list[_Set]:
        part = parts.parts[p]
        return _own_fronts(part.codes, parts.scope_codes(part), [t[p] for t in tables], distinct[p])

    def merge(p: int, here: _Set, there: _Set) -> _Set:
        points, i, j = merged(here.points, there.points, losses.combine)
        fits = (points <= limits[:, p]).all(axis=1)
        # Where both are defined they agree.
        return _Set(points[fits], np.maximum(here.codes[i[fits]], there.codes[j[fits]]))

    front = _Set(constant[None], np.zeros((1, len(space.variables)), np.uint8))
    for done, behind in enumerate(parts.backwards(own, merge, _union, front), 1):
        progress("merging fronts", done, len(parts.parts))
        if stop():
            return None
        front = next(iter(behind.values()))  # no variable is open before the first part
    return _exact_codes(losses, front.codes)


def least(space: Space, function: SlotFunction) -> tuple[Codes, float]:
    """The code of the minimum of a function, ``(variables,)``, and the minimum; exact."""
    front = exact_front(space, Losses((function,), (np.inf,)))
    assert front is not None
    [code] = front
    return code, float(function(code[None])[0])


def room(tables: list[Floats], combine: np.ufunc, limit: float) -> list[float]:
    """For each part, the share of a limit for it and all later parts if the earlier ones take their minimum."""
    limit += _ROUNDING * abs(limit) if np.isfinite(limit) else 0.0
    least_each = [0.0 if combine is np.maximum else float(table.min()) for table in tables]
    return [limit - before for before in np.cumsum([0.0, *least_each[:-1]])]


def _own_fronts(part_codes: Codes, scope: Codes, tables: list[Floats], distinct: Mask) -> list[_Set]:
    """The front of a part's own assignments, for each assignment of its scope."""
    fronts = []
    for row, code in enumerate(scope):
        [allowed] = np.nonzero(distinct[row])
        points = np.stack([table[row, allowed] for table in tables], axis=1)
        front = allowed[pareto(points)]
        fronts.append(_Set(np.stack([table[row, front] for table in tables], axis=1), part_codes[front] + code))
    return fronts


def _union(sets: list[_Set]) -> _Set:
    points = np.concatenate([s.points for s in sets])
    front = pareto(points)
    return _Set(points[front], np.concatenate([s.codes for s in sets])[front])


def _exact_codes(losses: Losses, codes: Codes) -> Codes:
    """The front recomputed with the functions themselves, whose sums differ by rounding."""
    points = losses(codes)
    fits = (points <= np.array(losses.limits)).all(axis=1)
    codes, points = codes[fits], points[fits]
    return codes[pareto(points)]
