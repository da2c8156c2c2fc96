"""Decomposition of a space for its functions: variable elimination along a path of parts.

If the variables that many terms read (the resolution, the width between two stages) are fixed, the rest decomposes into
independent parts: the stages. Each part is small enough to enumerate for every value of the fixed variables that it
reads, its scope. The parts form a path on which few fixed variables are open between adjacent parts, i.e. read on both
sides. The later parts are then summarised by one table for each assignment of the open variables: bucket elimination
(Dechter, "Bucket elimination: a unifying framework for reasoning", 1999) on a path. The decomposition follows from the
graph of variables that are read together; a space needs no declarations for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import networkx as nx
import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, SlotFunction, Space

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Assignment = tuple[int, ...]
T = TypeVar("T")

MAX_PART = 200_000  # assignments of a part: enumerated in a few tens of milliseconds
MAX_TABLE = 4_000_000  # assignments of a part and its scope: some tens of megabytes
MAX_OPEN = 20_000  # assignments of the open variables between two parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Variables that no other part reads, and their scope.

    Attributes:
        columns: its own variables.
        scope: fixed variables that its terms read.
        codes: the distinct assignments of its own variables, ``(m, variables)``, 0 elsewhere.
        before, after: fixed variables that are open on either side of it.
        opens: fixed variables that no earlier part reads.
    """

    columns: tuple[int, ...]
    scope: tuple[int, ...]
    codes: Codes
    before: tuple[int, ...]
    after: tuple[int, ...]
    opens: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """A space as a path of parts.

    Attributes:
        space: the space.
        held: the fixed variables.
        parts: the parts in order; each term belongs to one.
    """

    space: Space
    held: tuple[int, ...]
    parts: tuple[Component, ...]

    @classmethod
    def of(cls, space: Space, *functions: SlotFunction) -> Decomposition:
        """Decompose a space so that each of the functions splits along the parts.

        Raises:
            InvalidValue: the variables are too densely coupled for exact search.
        """
        choices = [len(v.values) for v in space.variables]
        # A variable is coupled with the one that it requires, so that every network is enumerated once.
        read = [*_requirements(space), *itertools.chain.from_iterable(f.axes for f in functions)]
        read = [tuple(axis for axis in axes if choices[axis] > 1) for axes in read]
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(i for i, n in enumerate(choices) if n > 1)
        for axes in read:
            graph.add_edges_from(itertools.combinations(axes, 2))
        adjacent = {node: set(graph[node]) for node in graph}
        held: list[int] = []
        while max((_assignments(part, choices) for part in nx.connected_components(graph)), default=1) > MAX_PART:
            held.append(_busiest(graph, graph))
            graph.remove_node(held[-1])
        members = _members(graph, adjacent, held)
        # A part can be small, but have a large scope: then it is taken apart, too.
        while wide := [m for m in members if _assignments((*m[0], *m[1]), choices) > MAX_TABLE and len(m[0]) > 1]:
            held.append(_busiest(graph, wide[0][0]))
            graph.remove_node(held[-1])
            members = _members(graph, adjacent, held)
        for axes in {tuple(sorted(axes)) for axes in read if axes and set(axes) <= set(held)}:
            if not any(set(axes) <= scope for _, scope in members):
                members.append(((), set(axes)))  # terms that read only fixed variables
        parts = _in_line(space, members, choices)
        return cls(space=space, held=tuple(sorted(held)), parts=parts)

    def assignments(self, columns: Iterable[int]) -> list[Assignment]:
        """Every assignment of some variables."""
        return list(itertools.product(*(range(len(self.space.variables[i].values)) for i in columns)))

    def scope_codes(self, part: Component) -> Codes:
        """Every assignment of a part's scope as a code, ``(n, variables)``, 0 elsewhere (order: `assignments`)."""
        found = self.assignments(part.scope)
        codes = np.zeros((len(found), len(self.space.variables)), np.uint8)
        codes[:, list(part.scope)] = np.array(found, np.uint8).reshape(len(found), len(part.scope))
        return codes

    def constant(self, function: SlotFunction) -> float:
        """The part of a function that belongs to no part."""
        own = [float(a.reshape(-1)[0]) for axes, a in self._terms(function) if not axes]
        return float(function.combine.reduce([function.constant, *own]))

    def tables(self, function: SlotFunction) -> list[Floats]:
        """For each part, the sum of its terms of the function: ``(assignments of its scope, m)``."""
        tables = []
        owned: list[list[tuple[tuple[int, ...], Floats]]] = [[] for _ in self.parts]
        owner = {column: p for p, part in enumerate(self.parts) for column in part.columns}
        for axes, array in self._terms(function):
            if axes:
                owners = {owner[axis] for axis in axes if axis in owner}
                p = owners.pop() if owners else next(i for i, q in enumerate(self.parts) if set(axes) <= set(q.scope))
                owned[p].append((axes, array))
        for part, terms in zip(self.parts, owned, strict=True):
            scope = self.scope_codes(part)
            table = np.zeros((len(scope), len(part.codes)))
            for axes, array in terms:
                # A variable is either one of the part's or in its scope; the other code is 0 there.
                strides = np.array(array.strides) // array.itemsize
                index = (scope[:, axes] @ strides)[:, None] + (part.codes[:, axes] @ strides)[None]
                function.combine(table, array.reshape(-1)[index], out=table)
            tables.append(table)
        return tables

    def distinct(self) -> list[Mask]:
        """For each part, a mask of its canonical assignments, ``(assignments of scope, m)``.

        A variable without effect must have its first value, or the same network would count several times.
        """
        found = []
        for part in self.parts:
            scope = self.scope_codes(part)
            known = {*part.columns, *part.scope}
            allowed = np.ones((len(scope), len(part.codes)), bool)
            for child in known:
                for parent, matters in self.space.conditions[child]:
                    if parent in known or len(matters) == 1:
                        parents = scope[:, None, parent] + part.codes[None, :, parent]
                        allowed &= matters[parents] | (scope[:, None, child] + part.codes[None, :, child] == 0)
            found.append(allowed)
        return found

    def backwards(
        self,
        own: Callable[[int], Sequence[T]],
        merge: Callable[[int, T, T], T],
        union: Callable[[list[T]], T],
        end: T,
    ) -> Iterator[dict[Assignment, T]]:
        """Eliminate the parts, from the last to the first.

        Args:
            own: of a part: its own value, for each assignment of its scope.
            merge: of a part: combines its value with that of the later parts.
            union: combines values over the assignments of the variables that a part opens.
            end: value after the last part.

        Yields:
            for each part, the last one first: the value of it and all later parts, by the assignment of the
            variables that are open before it.
        """
        behind: dict[Assignment, T] = {(): end}
        for p in range(len(self.parts) - 1, -1, -1):
            part, alone = self.parts[p], own(p)
            rows = {values: row for row, values in enumerate(self.assignments(part.scope))}
            found: dict[Assignment, list[T]] = {}
            for values in self.assignments((*part.before, *part.opens)):
                known = dict(zip((*part.before, *part.opens), values, strict=True))
                here = alone[rows[tuple(known[i] for i in part.scope)]]
                there = behind[tuple(known[i] for i in part.after)]
                found.setdefault(tuple(known[i] for i in part.before), []).append(merge(p, here, there))
            behind = {values: each[0] if len(each) == 1 else union(each) for values, each in found.items()}
            yield behind

    def _terms(self, function: SlotFunction) -> Iterable[tuple[tuple[int, ...], Floats]]:
        """The function's terms, contiguous, without the axes of variables with a single value."""
        for axes, array in zip(function.axes, function.arrays, strict=True):
            kept = tuple(axis for axis, length in zip(axes, array.shape, strict=True) if length > 1)
            yield kept, np.ascontiguousarray(array).reshape([length for length in array.shape if length > 1])


def _busiest(graph: nx.Graph[int], nodes: Iterable[int]) -> int:
    """The node that most others are adjacent to, the first one of several."""
    return max(nodes, key=lambda node: (graph.degree(node), -node))


def _members(
    graph: nx.Graph[int], adjacent: Mapping[int, set[int]], held: Collection[int]
) -> list[tuple[tuple[int, ...], set[int]]]:
    """The connected parts, and the fixed variables that each reads."""
    return [
        (tuple(sorted(own)), {h for node in own for h in adjacent[node] & set(held)})
        for own in nx.connected_components(graph)
    ]


def _requirements(space: Space) -> list[tuple[int, int]]:
    """Pairs of columns: a variable, and one that has an effect for some values of it only."""
    return [(one.column, i) for i, conditions in enumerate(space.conditions) for one in conditions]


def _assignments(columns: Iterable[int], choices: list[int]) -> int:
    return math.prod(choices[i] for i in columns)


def _too_dense(space: Space) -> InvalidValue:
    return InvalidValue(
        f"the variables of {space.name} are too densely coupled for exact search; restrict some of them (--fix when "
        "training the supernet, Space.fix in Python), or use another strategy, such as milp"
    )


def _in_line(
    space: Space, members: list[tuple[tuple[int, ...], set[int]]], choices: list[int]
) -> tuple[Component, ...]:
    """The parts in an order with few open variables: the next one always leaves the fewest.

    Raises:
        InvalidValue: too many assignments are open, or a part has too many.
    """
    waiting, parts = sorted(members, key=lambda m: m[0] or tuple(sorted(m[1]))), []
    before: set[int] = set()

    def behind(member: tuple[tuple[int, ...], set[int]]) -> set[int]:
        others = set().union(*(scope for own, scope in waiting if (own, scope) != member))
        return (before | member[1]) & others

    while waiting:
        chosen = min(waiting, key=lambda m: _assignments(behind(m), choices))
        after = behind(chosen)
        waiting.remove(chosen)
        own, scope = chosen
        codes = _enumerate(space, own)
        if _assignments(scope, choices) * len(codes) > MAX_TABLE or _assignments(before | scope, choices) > MAX_OPEN:
            raise _too_dense(space)
        parts.append(
            Component(
                columns=own,
                scope=tuple(sorted(scope)),
                codes=codes,
                before=tuple(sorted(before)),
                after=tuple(sorted(after)),
                opens=tuple(sorted(scope - before)),
            )
        )
        before = after
    return tuple(parts)


def _enumerate(space: Space, part: tuple[int, ...]) -> Codes:
    """The assignments of a part that describe different networks, ``(m, variables)``, 0 outside the part.

    A required variable may be outside the part (fixed, at an unknown value); then all its values count.
    """
    grids = np.meshgrid(*(np.arange(len(space.variables[i].values), dtype=np.uint8) for i in part), indexing="ij")
    codes = np.zeros((grids[0].size if grids else 1, len(space.variables)), np.uint8)
    for column, grid in zip(part, grids, strict=True):
        codes[:, column] = grid.reshape(-1)
    different = np.ones(len(codes), bool)
    for child in part:
        for parent, matters in space.conditions[child]:
            if parent in part or len(matters) == 1:
                different &= matters[codes[:, parent]] | (codes[:, child] == 0)
    return codes[different]
