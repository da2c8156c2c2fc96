"""Taking a space apart where its sums allow it.

Once the variables that many terms read (the resolution) are held, the rest falls into parts that share nothing: the
stages. Each part is small enough to enumerate, and a sum over the whole is a sum over the parts. This is variable
elimination on the terms' graph (Dechter, "Bucket elimination", 1999), with conditioning on the busiest variables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import networkx as nx
import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

MAX_PART = 200_000  # assignments of a part: an enumeration of a few tens of milliseconds
MAX_HELD = 20_000  # assignments of the held variables, each of which is searched on its own


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """A space as held variables and independent parts.

    Attributes:
        space: the space.
        held: columns whose values are tried one by one.
        parts: columns of each part; no term reads columns of two parts.
        codes: for each part, its distinct assignments as whole codes with 0 elsewhere, ``(m, variables)``.
    """

    space: Space
    held: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    codes: tuple[Codes, ...]

    @classmethod
    def of(cls, space: Space, *sums: SlotSum) -> Decomposition:
        """Take a space apart so that each of the sums splits along the parts.

        Raises:
            InvalidValue: the variables hang together so closely that no exact search is possible.
        """
        choices = [len(v.values) for v in space.variables]
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(choices)))
        for axes in itertools.chain.from_iterable(s.axes for s in sums):
            graph.add_edges_from(itertools.combinations(axes, 2))
        held: list[int] = []
        while max((_assignments(part, choices) for part in nx.connected_components(graph)), default=1) > MAX_PART:
            busiest = max(graph.nodes, key=lambda node: (graph.degree(node), -node))
            held.append(busiest)
            graph.remove_node(busiest)
            if _assignments(held, choices) > MAX_HELD:
                raise InvalidValue(
                    f"{space.name} does not fall into parts that can be enumerated; use --strategy random"
                )
        parts = tuple(tuple(sorted(part)) for part in nx.connected_components(graph))
        codes = tuple(_enumerate(space, part) for part in parts)
        return cls(space=space, held=tuple(sorted(held)), parts=parts, codes=codes)

    def conditions(self) -> Iterator[Codes]:
        """Every assignment of the held variables, as one code with 0 elsewhere, ``(variables,)``."""
        for values in itertools.product(*(range(len(self.space.variables[i].values)) for i in self.held)):
            code = np.zeros(len(self.space.variables), np.uint8)
            code[list(self.held)] = values
            yield code

    def part_values(self, total: SlotSum, condition: Codes) -> tuple[float, list[Floats]]:
        """A sum under a condition: the terms that no part owns, and for each part the sum of its terms.

        Returns:
            the constant, and for each part one value an assignment, ``(m,)``.
        """
        owner = {column: p for p, columns in enumerate(self.parts) for column in columns}
        constant = total.constant
        values = [np.zeros(len(codes)) for codes in self.codes]
        for axes, array in zip(total.axes, total.arrays, strict=True):
            term = SlotSum(constant=0.0, axes=(axes,), arrays=(array,))
            parts = {owner[axis] for axis in axes if axis in owner}
            if parts:
                [part] = parts
                values[part] += term(self.codes[part] + condition)
            else:
                constant += float(term(condition[None])[0])
        return constant, values

    def minimum(self, total: SlotSum) -> tuple[Codes, float]:
        """The code with the least value of a sum, ``(variables,)``, and that value; exact."""
        best: tuple[Codes, float] | None = None
        for condition in self.conditions():
            value, values = self.part_values(total, condition)
            code = condition.copy()
            for codes, part in zip(self.codes, values, strict=True):
                code = code + codes[part.argmin()]
                value += float(part.min())
            if best is None or value < best[1]:
                best = code, value
        assert best is not None
        return best


def _assignments(columns: object, choices: list[int]) -> int:
    return math.prod(choices[i] for i in columns)  # type: ignore[attr-defined]


def _enumerate(space: Space, part: tuple[int, ...]) -> Codes:
    """The assignments of a part that describe different networks, ``(m, variables)``, 0 outside the part.

    What a variable requires may lie outside the part (held, at a value yet unknown); then all its values count.
    """
    grids = np.meshgrid(*(np.arange(len(space.variables[i].values), dtype=np.uint8) for i in part), indexing="ij")
    largest = np.array([len(v.values) - 1 for v in space.variables], np.uint8)
    codes = np.tile(largest, (grids[0].size, 1))
    codes[:, list(part)] = np.stack([grid.reshape(-1) for grid in grids], axis=1)
    different = (space.canonical(codes)[:, list(part)] == codes[:, list(part)]).all(axis=1)
    out = np.zeros((int(different.sum()), len(space.variables)), np.uint8)
    out[:, list(part)] = codes[different][:, list(part)]
    return out
