"""The wiring of a network: the places of each slot, and their inputs.

In a chain every slot reads the previous one. In a cell several edges start at one node, and the same cell occurs many
times in the network. An op of kind ``none`` has no output: a reader of several places skips it, and an op without an
input has no output either, except ``zero``. An empty slot (None) is an identity. Equal ops without weights on the same
inputs are merged, as every runtime does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwnas.spaces.kinds import KINDS
from hwnas.spaces.ops import Op

if TYPE_CHECKING:
    from hwnas.spaces.slots import Slot

IMAGE = "image"
FROM_IMAGE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place of a slot in the network.

    Attributes:
        name: the slot's name if it has a single place; otherwise with the cell, e.g. ``stage1.cell2.edge_0_1``.
        slot: name of the slot, whose op is placed here.
        reads: names of earlier places, or `IMAGE`.
        activated: place of the activation of its input, which a convolution here reads instead; convolutions of several
            edges share it.
    """

    name: str
    slot: str
    reads: tuple[str, ...]
    activated: str | None = None

    def source(self, op: Op | None) -> str:
        """The input of a place with one input, if it holds that op."""
        return self.activated if self.activated and op and KINDS[op.kind].activated else self.reads[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An op in the network of an arch.

    Attributes:
        name: of the place.
        slot: of the place.
        op: the op.
        reads: positions of its inputs in the list of nodes; `FROM_IMAGE` for the image.
    """

    name: str
    slot: Slot
    op: Op
    reads: tuple[int, ...]


def chain(slots: Sequence[Slot]) -> tuple[Position, ...]:
    """Each slot once, reading the previous one."""
    before = [IMAGE, *(slot.name for slot in slots)]
    return tuple(
        Position(name=slot.name, slot=slot.name, reads=(read,)) for slot, read in zip(slots, before, strict=False)
    )


def resolve(places: Sequence[Position], slots: Mapping[str, Slot], ops: Mapping[str, Op | None]) -> list[Node]:
    """The network of an arch: its nodes in the order of execution, without those that the output does not need.

    Args:
        places: of the space.
        slots: by name.
        ops: name of a slot -> its op.
    """
    nodes: list[Node] = []
    given: dict[str, int] = {IMAGE: FROM_IMAGE}  # the output of each place
    cut: dict[str, int] = {}  # of a place without an output: the node that it would read
    plain: dict[tuple[Op, tuple[int, ...]], int] = {}  # ops without weights, by their inputs
    for place in places:
        op = ops[place.slot]
        names = place.reads if len(place.reads) > 1 else (place.source(op),)
        read = [given[name] for name in names if name in given]
        source = given[names[0]] if names[0] in given else cut[names[0]]
        role = KINDS[op.kind].role if op else None
        if (not read and role != "zero") or role == "none":
            cut[place.name] = source
        elif op is None:
            given[place.name] = read[0]  # the others are masks
        else:
            # Zeros are derived from the missing input, which has the batch size.
            reads = tuple(read) or (source,)
            if not op.params and (op, reads) in plain:
                given[place.name] = plain[op, reads]
                continue
            given[place.name] = plain[op, reads] = len(nodes)
            nodes.append(Node(name=place.name, slot=slots[place.slot], op=op, reads=reads))
    return _needed(nodes, given[places[-1].name])


def reads_image(nodes: Sequence[Node]) -> bool:
    """Whether the output of a network depends on the image; an edge of zeros does not."""
    depends = {FROM_IMAGE: True}
    for i, node in enumerate(nodes):
        depends[i] = KINDS[node.op.kind].role != "zero" and any(depends[read] for read in node.reads)
    return depends[len(nodes) - 1]


def _needed(nodes: list[Node], output: int) -> list[Node]:
    """The nodes that the output depends on; the output is the last of them."""
    needed = {output}
    for i in range(output, -1, -1):
        if i in needed:
            needed.update(nodes[i].reads)
    kept = [i for i in range(output + 1) if i in needed]
    moved = {FROM_IMAGE: FROM_IMAGE} | {old: new for new, old in enumerate(kept)}
    return [
        Node(name=n.name, slot=n.slot, op=n.op, reads=tuple(moved[r] for r in n.reads))
        for n in (nodes[i] for i in kept)
    ]
