"""The space of a traced network."""

from __future__ import annotations

import math
from functools import partial

from hwnas.errors import InvalidValue
from hwnas.spaces.ops import Op, make_op
from hwnas.spaces.slots import Slot, Variable
from hwnas.spaces.space import Space
from hwnas.spaces.traced.costs import sizes_text
from hwnas.spaces.traced.spec import NetworkSpec, SegmentGraph


def space_of(network: NetworkSpec) -> Space:
    """The space of a network: a width for each group, a switch for each block that can be left out.

    A width is a number of units: channels, heads of an attention, or groups of channels of a grouped convolution. A
    rank makes two thinner layers of one, unless these would have no fewer weights. The largest arch is the network
    itself.

    Args:
        network: made known in this process (`hwnas.spaces.traced.remember`).
    """
    channels, height, width = network.input
    readers: dict[int, set[int | None]] = {}
    for segment in network.segments:
        for read in segment.groups:
            readers.setdefault(read, set()).add(segment.block)
    variables = [Variable(name="resolution", values=(height,))]
    variables += [Variable(name=block_name(block), values=(0, 1)) for block in range(1, network.blocks + 1)]
    names_of = group_names(network)
    for number, group in enumerate(network.groups):
        [only, *others] = readers.get(number, {None})
        # A width that only one block reads has no effect without it.
        requires = (block_name(only), 1) if only is not None and not others else None
        variables.append(Variable(name=names_of[number], values=tuple(group.choices), requires=requires))
    slots = []
    for segment in network.segments:
        graph = network.graphs[segment.graph]
        names = tuple(names_of[number] for number in segment.groups)
        if segment.block is None:
            # Each slot reads something: one without widths reads the only resolution.
            op = partial(_op, graph) if names else partial(_only, graph)
            slots.append(Slot(name=segment.name, group=segment.group, variables=names or ("resolution",), op=op))
        else:
            switch = block_name(segment.block)
            slots.append(
                Slot(name=segment.name, group=segment.group, variables=(switch, *names), op=partial(_optional, graph))
            )
    shared = math.gcd(width, height)
    return Space(
        name=network.space,
        variables=tuple(variables),
        slots=tuple(slots),
        classes=network.classes,
        in_channels=channels,
        aspect=f"{width // shared}:{height // shared}",
    )


def checked_space(network: NetworkSpec, in_channels: int | None, classes: int | None) -> Space:
    """The space of a network, if it is one for images of these channels and for these classes.

    Raises:
        InvalidValue: it is not.
    """
    if in_channels not in (None, network.input[0]) or classes not in (None, network.classes):
        raise InvalidValue(
            f"{network.space} takes images of {network.input[0]} channels and has {network.classes} outputs; the data "
            f"have {in_channels} channels and {classes} classes"
        )
    return space_of(network)


def group_names(network: NetworkSpec) -> list[str]:
    """Names of the variables of the groups of a network: widths and ranks are counted from 1."""
    counts = {"width": 0, "rank": 0}
    found = []
    for group in network.groups:
        kind = "rank" if group.rank else "width"
        counts[kind] += 1
        found.append(f"{kind}_{counts[kind]}")
    return found


def block_name(block: int) -> str:
    """Name of the switch of a block, which is counted from 1."""
    return f"block_{block}"


def _op(graph: SegmentGraph, *units: int) -> Op:
    given, made = graph.shapes(units)
    return make_op("segment", given, made, graph=graph.digest, sizes=sizes_text(graph.useful(units)))


def _only(graph: SegmentGraph, resolution: int) -> Op:
    return _op(graph)


def _optional(graph: SegmentGraph, block: int, *units: int) -> Op | None:
    return _op(graph, *units) if block else None
