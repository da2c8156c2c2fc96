"""Exact Pareto fronts of a whole space, by merging the fronts of its parts.

A combination that is dominated among the assignments of some parts is dominated whatever the other parts hold, because
what merges two values (a sum, a maximum) never falls when one of them grows. So the front of all parts is among the
combinations of the fronts of two halves, and nothing is approximated.
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
    """Functions that are all to be small, and the part of each up to which it counts.

    Attributes:
        functions: sums and maxima over slots.
        limits: what each may be at most; infinity where there is no limit.
    """

    functions: tuple[SlotFunction, ...]
    limits: tuple[float, ...]

    def __call__(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> ``(n, functions)``."""
        return np.stack([f(codes) for f in self.functions], axis=1)

    @property
    def combine(self) -> tuple[np.ufunc, ...]:
        """What makes one value of those of two parts, for each function."""
        return tuple(f.combine for f in self.functions)


_ROUNDING = 1e-9  # share of a limit by which sums in another order may differ; the result is checked without it


@dataclass(frozen=True, slots=True)
class _Set:
    """Points ``(n, functions)`` and the assignments that have them, ``(n, variables)``."""

    points: Floats
    codes: Codes


def exact_front(
    space: Space, losses: Losses, *, progress: Progress = silent, stop: Callable[[], bool] = never
) -> Codes | None:
    """The Pareto front of a space: ``(n, variables)``, by ascending first loss.

    Networks above a limit do not count. Of networks with equal losses one is given.

    Args:
        space: the space.
        losses: what is to be small.
        progress: callback, invoked after every part.
        stop: asked as often; after a True the answer is None, for a front of some parts is no front.

    Raises:
        InvalidValue: the space does not fall into parts that can be enumerated.
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
        # Where both say something they agree.
        return _Set(points[fits], np.maximum(here.codes[i[fits]], there.codes[j[fits]]))

    front = _Set(constant[None], np.zeros((1, len(space.variables)), np.uint8))
    for done, behind in enumerate(parts.backwards(own, merge, _union, front), 1):
        progress("merging fronts", done, len(parts.parts))
        if stop():
            return None
        front = next(iter(behind.values()))  # nothing is open before the first part
    return _exact_codes(losses, front.codes)


def least(space: Space, function: SlotFunction) -> tuple[Codes, float]:
    """The code with the least value of a function, ``(variables,)``, and that value; exact."""
    front = exact_front(space, Losses((function,), (np.inf,)))
    assert front is not None
    [code] = front
    return code, float(function(code[None])[0])


def room(tables: list[Floats], combine: np.ufunc, limit: float) -> list[float]:
    """For each part, what it and all behind it may take of a limit while those before it take their least."""
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
    """The front once more by the functions themselves, whose sums differ from ours in their last digits."""
    points = losses(codes)
    fits = (points <= np.array(losses.limits)).all(axis=1)
    codes, points = codes[fits], points[fits]
    return codes[pareto(points)]
