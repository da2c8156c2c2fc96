"""The space of a traced network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from hwnas.errors import InvalidValue
from hwnas.spaces.ops import Op, make_op
from hwnas.spaces.slots import Slot, Value, Variable
from hwnas.spaces.space import Space
from hwnas.spaces.traced.costs import sizes_text
from hwnas.spaces.traced.spec import NetworkSpec, SegmentGraph, SegmentSpec


def space_of(network: NetworkSpec) -> Space:
    """The space of a network: a width for each group, a switch for each block that can be left out.

    A width is a number of units: channels, heads of an attention, or groups of channels of a grouped convolution. A
    rank makes two thinner layers of one, unless these would have no fewer weights. In a hybrid each stage is that of
    one of several networks, with its own weights. The largest arch is the network itself.

    Args:
        network: made known in this process (`hwnas.spaces.traced.remember`).
    """
    channels, height, width = network.input
    readers: dict[int, set[int | None]] = {}
    for segment in network.segments:
        for read in segment.groups:
            readers.setdefault(read, set()).add(segment.block)
    variables = [Variable(name="resolution", values=tuple(network.resolutions))]
    variables += [Variable(name=block_name(block), values=(0, 1)) for block in range(1, network.blocks + 1)]
    names_of = group_names(network)
    for number, group in enumerate(network.groups):
        [only, *others] = readers.get(number, {None})
        # A width that only one block reads has no effect without it.
        matters = (block_name(only), (1,)) if only is not None and not others else None
        variables.append(Variable(name=names_of[number], values=tuple(group.choices), matters=matters))
    slots = []
    for segment in network.segments:
        if segment.experts:
            slots.append(_of_experts(network, segment, variables))
            continue
        sized = (network.graphs[digest] for digest in segment.graphs)
        graphs: dict[Value, SegmentGraph] = dict(zip(network.resolutions, sized, strict=True))
        widths = tuple(names_of[number] for number in segment.groups)
        switch = () if segment.block is None else (block_name(segment.block),)
        # Each slot reads something: one without widths reads the only resolution.
        size = ("resolution",) if len(graphs) > 1 or not (switch or widths) else ()
        op = partial(_op, graphs, bool(switch), bool(size))
        slots.append(Slot(name=segment.name, group=segment.group, variables=(*switch, *size, *widths), op=op))
    shared = math.gcd(width, height)
    return Space(
        name=network.space,
        variables=tuple(variables),
        slots=tuple(slots),
        classes=network.classes,
        in_channels=channels,
        aspect=f"{width // shared}:{height // shared}",
        shares_weights=not any(segment.experts for segment in network.segments),
    )


def _of_experts(network: NetworkSpec, segment: SegmentSpec, variables: list[Variable]) -> Slot:
    """The slot of a stage that several networks have; its variable is added to `variables`."""
    digests = {**{name: expert.graph for name, expert in segment.experts.items()}, network.name: segment.graph}
    name = f"expert_{sum(variable.name.startswith('expert_') for variable in variables) + 1}"
    variables.append(Variable(name=name, values=tuple(digests)))
    graphs: dict[Value, SegmentGraph] = {expert: network.graphs[digest] for expert, digest in digests.items()}
    return Slot(name=segment.name, group=segment.group, variables=(name,), op=partial(_op, graphs, False, True))


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


def _op(graphs: Mapping[Value, SegmentGraph], optional: bool, chosen: bool, *values: Value) -> Op | None:
    """The op of a segment.

    Args:
        graphs: resolution, or name of a network -> operations.
        optional: whether the first value is the switch of its block.
        chosen: whether the next one chooses the operations.
        values: of the slot's variables.
    """
    if optional and not values[0]:
        return None
    graph = graphs[values[optional]] if chosen else next(iter(graphs.values()))
    units = tuple(map(int, values[optional + chosen :]))
    given, made = graph.shapes(units)
    return make_op("segment", given, made, graph=graph.digest, sizes=sizes_text(graph.useful(units)))
