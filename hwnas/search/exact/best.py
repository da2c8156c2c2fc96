"""Exact search for the best networks within budgets.

The Pareto fronts of each part and all later parts (`hwnas.search.exact.front`) bound the completions of partial
assignments. In a forward pass over the parts, each partial assignment gets a bound: its accuracy plus the best that the
remaining parts can add within the slack of the budget.

With one budget the bound is attained, so at every part the k best partial assignments by bound suffice for the k best
networks.

With several budgets, the slack of each of them and of weighted sums of them (surrogate constraints: Glover, "Surrogate
Constraints", Operations Research 1968; the weights minimise the bound, like Lagrange multipliers) give bounds, of which
the smallest is used. A beam search finds good networks; the k-th best of them is a threshold, and a second pass keeps
every partial assignment whose bound reaches it. Discarded ones cannot lead to the k best networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from hwnas.errors import InvalidValue
from hwnas.progress import Progress, never, silent
from hwnas.search.exact.decompose import Assignment, Decomposition, Floats
from hwnas.search.exact.front import Losses, room
from hwnas.search.exact.pareto import Indices, merged, pareto
from hwnas.spaces import Codes, SlotSum, Space

_BEAM = 2000  # partial assignments that the first pass keeps with several budgets
_MAX_BEGINNINGS = 3_000_000  # partial assignments: a few hundred megabytes
_SHORT = 20  # partial assignments that a stopped search keeps: some tens of milliseconds
_AT_ONCE = 4_000_000  # combinations of partial assignments and assignments of a part in one array
_ROUNDING = 1e-9  # relative rounding error of sums in another order; results are checked without it

Front = tuple[Floats, Floats]  # costs ascending, gains ascending


@dataclass(frozen=True, slots=True)
class _Beginnings:
    """Partial assignments up to a part: gain ``(n,)``, costs ``(n, budgets)``, codes ``(n, variables)``, bound."""

    gain: Floats
    costs: Floats
    codes: Codes
    bound: Floats

    def take(self, rows: Indices) -> _Beginnings:
        return _Beginnings(self.gain[rows], self.costs[rows], self.codes[rows], self.bound[rows])


def best_networks(
    space: Space, gain: SlotSum, losses: Losses, k: int, *, progress: Progress = silent, stop: Callable[[], bool]
) -> tuple[Codes, bool]:
    """The k networks of the largest gain whose losses are all within their limits.

    Args:
        space: the space.
        gain: function to maximise.
        losses: functions with limits.
        k: largest number of networks.
        progress: callback, invoked after every group of partial assignments.
        stop: polled regularly; when it returns True, the best so far are returned.

    Returns:
        ``(at most k, variables)``, the best first, and whether it is proved that no other is better. Fewer than k mean
        that there are no others; zero, that no network is within the limits.

    Raises:
        InvalidValue: the space cannot be decomposed into enumerable parts, or too many partial assignments remain.
    """
    search = _Search(space, gain, losses, progress, stop)
    if search.single:
        # Because of rounding, some networks may turn out to be above a limit: search again for more networks.
        keep = k
        while True:
            found = search.forward(-np.inf, keep)
            codes = search.exact(found, k)
            if search.stopped or len(codes) == min(k, keep) or len(found.gain) < keep:
                return search.shortened(codes, k), not search.stopped
            keep *= 2
    found = search.forward(-np.inf, max(k, _BEAM))
    codes = search.exact(found, k)
    if search.stopped:
        return search.shortened(codes, k), False
    # Of a network within the budgets; tables do not include the gain's constant.
    threshold = float(gain(codes)[-1]) - search.parts.constant(gain) if len(codes) == k else -np.inf
    found = search.forward(threshold - _ROUNDING * max(1.0, abs(threshold)), None)
    if search.stopped:
        return codes, False
    return search.exact(found, k), True


class _Search:
    """One search: the tables of the parts and the bounds of the remaining parts."""

    def __init__(
        self, space: Space, gain: SlotSum, losses: Losses, progress: Progress, stop: Callable[[], bool]
    ) -> None:
        self.space, self.gain, self.losses = space, gain, losses
        self.progress, self.stop, self.stopped = progress, stop, False
        self.parts = Decomposition.of(space, gain, *losses.functions)
        self.gains = self.parts.tables(gain)
        self.allowed = self.parts.distinct()
        sums = []
        for function, limit in zip(losses.functions, losses.limits, strict=True):
            tables = self.parts.tables(function)
            if function.combine is np.maximum:  # within its limit if every term is
                self._forbid(self.parts.constant(function), tables, limit)
            else:
                sums.append((tables, limit - self.parts.constant(function)))
        # Costs as shares of the slack for all parts: every limit is 1.
        self.costs = (
            [np.stack([t[p] / abs(left) for t, left in sums], axis=-1) for p in range(len(self.gains))]
            if sums
            else [np.zeros((*g.shape, 1)) for g in self.gains]
        )
        self.limits = np.array([np.sign(left) for _, left in sums] or [1.0])
        self.single = len(self.limits) == 1
        self.weights = np.eye(len(self.limits))
        if not self.single:
            self.weights = np.concatenate([self.weights, [self._multipliers()]])
        self.ahead = [self._fronts_ahead(w) for w in self.weights]
        self.room = self.weights @ self.limits
        self.room += _ROUNDING * np.abs(self.room)

    def _forbid(self, constant: float, tables: list[Floats], limit: float) -> None:
        limit += _ROUNDING * abs(limit)
        self.allowed = [
            allowed & (table <= limit) & (constant <= limit)
            for allowed, table in zip(self.allowed, tables, strict=True)
        ]

    def _multipliers(self) -> Floats:
        """Weights of the budgets whose weighted sum gives the tightest bound of the best network."""
        count = len(self.limits)

        def weighted(free: Floats) -> Floats:
            weights = np.append(np.abs(free), abs(1 - np.abs(free).sum()))
            return np.asarray(weights / weights.sum())

        def bound(free: Floats) -> float:
            weights = weighted(free)
            [front] = self._fronts_ahead(weights)[0].values()
            [value] = _best_within(front, np.array([weights @ self.limits]))
            return float(value) if np.isfinite(value) else -1e300

        start = np.full(count - 1, 1 / count)
        found = optimize.minimize(bound, start, method="Nelder-Mead", options={"maxfev": 15 * (count - 1)})
        return weighted(found.x)

    def _fronts_ahead(self, weights: Floats) -> list[dict[Assignment, Front]]:
        """For each part, the fronts of it and all later parts, by the assignment of its open variables."""
        costs = [table @ weights for table in self.costs]
        rooms = room(costs, np.add, float(weights @ self.limits))

        def own(p: int) -> list[Front]:
            return [_front(costs[p][row][mask], self.gains[p][row][mask]) for row, mask in enumerate(self.allowed[p])]

        def merge(p: int, here: Front, there: Front) -> Front:
            return _merged(here, there, rooms[p])

        end: Front = (np.zeros(1), np.zeros(1))
        fronts: list[dict[Assignment, Front]] = [{(): end}, *self.parts.backwards(own, merge, _union, end)]
        return fronts[::-1]

    def forward(self, threshold: float, keep: int | None) -> _Beginnings:
        """Networks whose partial assignments all have bounds of at least `threshold` and are among the `keep` best.

        Raises:
            InvalidValue: too many partial assignments.
        """
        columns, width = len(self.space.variables), len(self.limits)
        start = _Beginnings(np.zeros(1), np.zeros((1, width)), np.zeros((1, columns), np.uint8), np.full(1, np.inf))
        now = start
        for p, part in enumerate(self.parts.parts):
            before = now.codes[:, list(part.before)]
            groups, member = np.unique(before, axis=0, return_inverse=True)
            scopes = self.parts.assignments(part.scope)
            found: list[_Beginnings] = []
            steps = [(g, opened) for g in range(len(groups)) for opened in self.parts.assignments(part.opens)]
            for step, (g, opened) in enumerate(steps):
                self.progress(f"searching part {p + 1} of {len(self.parts.parts)}", step, len(steps))
                if self.stop():
                    self.stopped = True
                    return start.take(np.zeros(0, np.intp))
                known = dict(zip((*part.before, *part.opens), (*groups[g].tolist(), *opened), strict=True))
                row = scopes.index(tuple(known[i] for i in part.scope))
                after = tuple(known[i] for i in part.after)
                own = now.take(np.nonzero(member.reshape(-1) == g)[0])
                found += self._expand(p, row, own, known, after, threshold, keep)
                found = _gathered(found, keep)
            now = _gathered(found, keep, whole=True)[0] if found else start.take(np.zeros(0, np.intp))
        return now

    def _expand(
        self,
        p: int,
        row: int,
        own: _Beginnings,
        known: dict[int, int],
        after: Assignment,
        threshold: float,
        keep: int | None,
    ) -> list[_Beginnings]:
        """Partial assignments extended by each assignment of a part, if their bounds reach the threshold."""
        part = self.parts.parts[p]
        [choices] = np.nonzero(self.allowed[p][row])
        gains, costs = self.gains[p][row, choices], self.costs[p][row, choices]
        added = part.codes[choices].copy()
        for column, value in known.items():
            added[:, column] = value
        rows = max(1, _AT_ONCE // max(1, len(choices)))
        found = []
        for first in range(0, len(own.gain), rows):
            some = slice(first, first + rows)
            gain = (own.gain[some, None] + gains[None]).reshape(-1)
            cost = (own.costs[some, None] + costs[None]).reshape(len(gain), len(self.limits))
            bound = np.full(len(gain), np.inf)
            for weights, limit, fronts in zip(self.weights, self.room, self.ahead, strict=True):
                spare = limit - cost @ weights
                np.minimum(bound, gain + _best_within(fronts[p + 1][after], spare), out=bound)
            [chosen] = np.nonzero((bound >= threshold) & np.isfinite(bound))
            if keep is not None and len(chosen) > keep:
                chosen = chosen[np.argpartition(-bound[chosen], keep)[:keep]]
            i, j = np.divmod(chosen, len(choices))
            codes = np.maximum(own.codes[some][i], added[j])
            found.append(_Beginnings(gain[chosen], cost[chosen], codes, bound[chosen]))
        return found

    def exact(self, found: _Beginnings, k: int) -> Codes:
        """The k best networks by the functions themselves, whose sums differ by rounding."""
        codes = found.codes
        if len(codes) and self.losses.functions:
            codes = codes[(self.losses(codes) <= np.array(self.losses.limits)).all(axis=1)]
        return codes[np.argsort(-self.gain(codes), kind="stable")[:k]] if len(codes) else codes

    def shortened(self, codes: Codes, k: int) -> Codes:
        """The resulting networks; if the search was stopped before there were any, those of a short beam search."""
        if len(codes) or not self.stopped:
            return codes
        self.stop = never
        return self.exact(self.forward(-np.inf, min(k, _SHORT)), k)


def _gathered(found: list[_Beginnings], keep: int | None, *, whole: bool = False) -> list[_Beginnings]:
    """Merge several sets of partial assignments and keep the best, when there are many or at the end."""
    count = sum(len(each.gain) for each in found)
    if keep is None and count > _MAX_BEGINNINGS:
        raise InvalidValue(
            f"with these budgets more than {_MAX_BEGINNINGS:.0e} partial assignments may lead to the best network; "
            "use --strategy milp, or fewer budgets"
        )
    if not whole and (keep is None or count < 4 * keep):
        return found
    one = _Beginnings(
        *(np.concatenate([getattr(each, name) for each in found]) for name in ("gain", "costs", "codes", "bound"))
    )
    return [one if keep is None else one.take(np.argsort(-one.bound, kind="stable")[:keep])]


def _best_within(front: Front, spare: Floats) -> Floats:
    """The best gain on a front within each of these costs; minus infinity if there is none."""
    cost, gain = front
    if not len(cost):
        return np.full(len(spare), -np.inf)
    index = np.searchsorted(cost, spare, side="right") - 1
    return np.where(index >= 0, gain[index], -np.inf)


def _front(cost: Floats, gain: Floats) -> Front:
    points = np.stack([cost, -gain], axis=1)
    front = pareto(points)
    return cost[front], gain[front]


def _merged(a: Front, b: Front, limit: float) -> Front:
    points, _, _ = merged(np.stack([a[0], -a[1]], axis=1), np.stack([b[0], -b[1]], axis=1), (np.add, np.add))
    points = points[points[:, 0] <= limit]
    return points[:, 0], -points[:, 1]


def _union(fronts: list[Front]) -> Front:
    return _front(np.concatenate([f[0] for f in fronts]), np.concatenate([f[1] for f in fronts]))
