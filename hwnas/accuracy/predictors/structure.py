"""The graphs of networks as arrays, one copy of every cell.

All networks of a space have the same places, so a batch of graphs is a batch of matrices. Cells with the same variables
differ in their shapes only; one of them says all that distinguishes two networks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hwnas.accuracy.predictors.base import Floats
from hwnas.spaces import Codes, Op, Space
from hwnas.spaces.kinds import KINDS
from hwnas.spaces.wiring import Node

Code = npt.NDArray[np.uint8]
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graphs:
    """Networks as arrays.

    Attributes:
        ops: features of the op of each place, ``(n, places, features)``; 0 without an op.
        present: whether a place has an op, ``(n, places)``.
        edges: whether a place (second axis) reads another (third axis), ``(n, places, places)``.
    """

    ops: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]
    edges: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The places of a space that distinguish its networks.

    Attributes:
        space: the space.
        places: name of a kept place -> its index.
        cells: names of the places of each kept cell.
        kinds: kinds of ops -> index of their indicators.
        numbers: names of integer attributes -> index of their features.
    """

    space: Space
    places: dict[str, int]
    cells: tuple[frozenset[str], ...]
    kinds: dict[str, int]
    numbers: dict[str, int]
    _known: dict[Op, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, space: Space) -> Structure:
        """The structure of a space."""
        groups = cells_of(space)
        first = {key: name for name, key in reversed(groups.items())}
        kept = [p.name for p in space.places if first.get(groups.get(c := _cell(p.name), ()), c) == c]
        cells = tuple(frozenset(name for name in kept if _cell(name) == cell) for cell in sorted(first.values()))
        ops = [op for slot in space.slots for op in space.slot_ops(slot).flat if op is not None]
        kinds = sorted({op.kind for op in ops})
        numbers = sorted({name for op in ops for name, value in op.attributes if isinstance(value, int)})
        return cls(
            space=space,
            places={name: i for i, name in enumerate(kept)},
            cells=cells,
            kinds={kind: i for i, kind in enumerate(kinds)},
            numbers={name: i for i, name in enumerate(numbers)},
        )

    def graphs(self, codes: Codes) -> Graphs:
        """Codes ``(n, variables)`` -> their graphs."""
        n, places = len(codes), len(self.places)
        ops = np.zeros((n, places, len(self.kinds) + len(self.numbers) + 5), np.float32)
        present, edges = np.zeros((n, places), bool), np.zeros((n, places, places), bool)
        for i, arch in enumerate(self.space.decode(codes)):
            nodes = self.space.network(arch)
            for node in nodes:
                at = self.places.get(node.name)
                if at is None:
                    continue
                ops[i, at], present[i, at] = self._features(node.op), True
                for read in node.reads:
                    if read >= 0 and (source := self.places.get(nodes[read].name)) is not None:
                        edges[i, at, source] = True
        return Graphs(ops, present, edges)

    def paths(self, code: Code) -> set[Path]:
        """The paths through the cells of a network: the number of the cell, and its operations in order.

        Operations are those with weights or a window, and zeros; sums, activations and skip connections are not.
        """
        [arch] = self.space.decode(code[None])
        nodes, found = self.space.network(arch), set[Path]()
        for number, cell in enumerate(self.cells):
            found |= _paths(nodes, cell, str(number)) or {(str(number),)}  # without nodes it passes its input on
        return found

    def _features(self, op: Op) -> Floats:
        if op not in self._known:
            found = np.zeros(len(self.kinds) + len(self.numbers) + 5)
            found[self.kinds[op.kind]] = 1
            for name, value in op.attributes:
                if isinstance(value, int):
                    found[len(self.kinds) + self.numbers[name]] = np.log2(1 + value)
            sizes = (op.macs, op.params, op.input[0], op.output[0], np.prod(op.output))
            found[-5:] = np.log2(1.0 + np.array(sizes, np.float64))
            self._known[op] = found
        return self._known[op]


def _cell(place: str) -> str:
    """The cell of a place: its name before the last dot."""
    return place.rpartition(".")[0]


def cells_of(space: Space) -> dict[str, tuple[object, ...]]:
    """Name of each cell -> what it has in common with its copies: its variables and the names of its places.

    The dictionary is empty for a space whose places are all outside of cells.
    """
    variables = {slot.name: {*slot.variables, *slot.needed_by} for slot in space.slots}
    inside = {_cell(place.name) for place in space.places if place.name != place.slot}
    members: dict[str, list[str]] = {}
    read: dict[str, set[str]] = {}
    for place in space.places:
        if (cell := _cell(place.name)) in inside:
            members.setdefault(cell, []).append(place.name.removeprefix(cell))
            read.setdefault(cell, set()).update(variables[place.slot])
    return {cell: (frozenset(read[cell]), tuple(members[cell])) for cell in members}


def _paths(nodes: list[Node], cell: frozenset[str], mark: str) -> set[Path]:
    """Paths of a cell from the nodes that read what is outside to those that nothing inside reads."""
    ends: dict[int, set[Path]] = {}
    read_inside: set[int] = set()
    for i, node in enumerate(nodes):
        if node.name not in cell:
            continue
        operation = node.op.params or "kernel" in dict(node.op.attributes) or KINDS[node.op.kind].role == "zero"
        own = (_label(node.op),) if operation else ()
        before = set[Path]()
        for read in node.reads:
            if read in ends:
                before |= ends[read]
                read_inside.add(read)
            else:
                before.add((mark,))
        ends[i] = {(*path, *own) for path in before}
    return {path for i, found in ends.items() if i not in read_inside for path in found}


def _label(op: Op) -> str:
    """An op without its shapes."""
    return " ".join([op.kind, *(f"{name}={value}" for name, value in op.attributes)])
