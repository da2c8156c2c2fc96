"""The candidates in the places of a relaxed network, and the variables that choose among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.errors import InvalidValue
from hwnas.latency.expectation import contract
from hwnas.spaces import Op, Slot, Space
from hwnas.spaces.kinds import KINDS
from hwnas.spaces.wiring import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The choice among the candidates of a slot.

    Attributes:
        variables: names of the variables that choose.
        candidates: the distinct ops; None is an identity.
        table: 1 if the values choose the candidate, else 0: ``(choices of the first variable, ..., candidates)``.
    """

    variables: tuple[str, ...]
    candidates: tuple[Op | None, ...]
    table: Tensor

    @classmethod
    def of(cls, space: Space, slot: Slot) -> Choice:
        """The choice of a slot.

        Raises:
            InvalidValue: the outputs of the ops differ in size or number of channels, so they cannot be summed.
        """
        ops = space.slot_ops(slot)
        candidates = tuple(dict.fromkeys(ops.flat))
        index = torch.tensor([candidates.index(op) for op in ops.flat])
        names = tuple(name for name in slot.variables if len(space.variable(name).values) > 1)
        table = functional.one_hot(index, len(candidates)).double()
        shapes = {(op.input, op.output) for op in candidates if op is not None}
        passes = None in candidates and any(before != after for before, after in shapes)
        lengths = [len(space.variable(name).values) for name in names]
        choice = cls(variables=names, candidates=candidates, table=table.reshape(*lengths, len(candidates)))
        if not choice.merges and (len(shapes) > 1 or passes):
            raise InvalidValue(
                f"the ops of {slot.name} in {space.name} differ in the shapes that they read or give, so their outputs "
                f"cannot be summed; hold the variables that say so to one value each, of {', '.join(names)} "
                "(--fix, Space.fix)"
            )
        return choice

    @property
    def merges(self) -> bool:
        """Whether this is a node, which merges its inputs into one value and has no choice."""
        return any(op is not None and KINDS[op.kind].merges for op in self.candidates)

    def contracted(self, values: Mapping[str, Tensor]) -> Tensor:
        """Weights or masks of the variables' values, ``(choices,)`` each -> of the candidates, ``(candidates,)``."""
        given = [values[name] for name in self.variables]
        if not given:
            return self.table
        return contract(self.table.to(given[0]), given)


def chosen_edges(space: Space, choices: Mapping[str, Choice], node: Position) -> tuple[str, Tensor] | None:
    """The variable that chooses among the edges into a node, and the edges that each of its values opens.

    Each of its values opens the same number of edges; the others have no output, for all values of the other variables.
    In DARTS, this variable is the pair of nodes that a node reads. A node of NAS-Bench-201 reads all of its edges:
    there, each edge has a separate choice to have no operation.

    Returns:
        The variable and ``(choices, edges)``, 1 if the value opens the edge, else 0; None if there is no such variable.
    """
    slots = {place.name: place.slot for place in space.places}
    edges = [choices[slots[read]] for read in node.reads if read in slots]
    for name in dict.fromkeys(name for edge in edges for name in edge.variables):
        if not all(name in edge.variables for edge in edges):
            continue
        opens = torch.stack([_opened(edge, name) for edge in edges], dim=1)
        counts = opens.sum(dim=1)
        if bool((counts < len(edges)).all()) and len(counts.unique()) == 1 and len(opens.unique(dim=0)) > 1:
            return name, opens
    return None


def _opened(edge: Choice, name: str) -> Tensor:
    """For each value of a variable, whether the edge can have an output, ``(choices,)``."""
    gives = torch.tensor([op is None or not op.free for op in edge.candidates])
    given = (edge.table.bool() & gives).any(dim=-1)
    others = [axis for axis, variable in enumerate(edge.variables) if variable != name]
    return given.amax(dim=others).double() if others else given.double()
