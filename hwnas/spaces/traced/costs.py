"""Costs of the segments of a traced network, counted from their operations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hwnas.spaces.traced.known import graph_named
from hwnas.spaces.traced.spec import NodeSpec, SegmentGraph, Units, elements

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op

PREFIX = "u"  # of the attribute ``sizes``, u16.32: it is a text also for one number
CONVOLUTIONS, LINEAR = ("aten.conv1d.default", "aten.conv2d.default"), "aten.linear.default"


def sizes_text(units: Units, beside: Mapping[int, int] | None = None) -> str:
    """The attribute ``sizes`` of an op: ``u16.32``.

    Args:
        units: of each group of its graph.
        beside: group of a layer that is there both whole and as two thinner ones -> their rank, as in ``u16.8+32``:
            all forms of a segment share the weights of such an op (`hwnas.nn.segment.shared`).
    """
    beside = beside or {}
    return PREFIX + ".".join(f"{beside[i]}+{n}" if i in beside else str(n) for i, n in enumerate(units))


def units_of(op: Op) -> tuple[int, ...]:
    """Units of each group of an op's graph, from its attribute ``sizes``."""
    return tuple(int(part.rpartition("+")[2]) for part in _parts(op))


def ranks_beside(op: Op) -> dict[int, int]:
    """Group of a layer that an op has in both forms -> the rank of the thinner one."""
    return {i: int(part.partition("+")[0]) for i, part in enumerate(_parts(op)) if "+" in part}


def _parts(op: Op) -> list[str]:
    text = str(op["sizes"]).removeprefix(PREFIX)
    return text.split(".") if text else []


def graph_of(op: Op) -> SegmentGraph:
    """The operations of an op of kind segment.

    Raises:
        InvalidValue: its network is not open in this process.
    """
    return graph_named(str(op["graph"]))


def macs(op: Op) -> int:
    """MACs of convolutions and linear layers for one image."""
    graph, units = graph_of(op), units_of(op)
    return sum(_node_macs(graph, node, units) for node in graph.nodes)


def _node_macs(graph: SegmentGraph, node: NodeSpec, units: Units) -> int:
    arg = node.args[1] if node.op in (*CONVOLUTIONS, LINEAR) and len(node.args) > 1 else None
    if not isinstance(arg, dict) or "weight" not in arg or node.sizes is None:
        return 0  # no layer, or one whose weight is computed
    out, *others = graph.weights[str(arg["weight"])].shape(units)
    made = elements(node.sizes, units)
    if (rank := _thin(graph, node, units)) is not None:
        return made // out * rank * (out + math.prod(others))
    return made * math.prod(others)


def _thin(graph: SegmentGraph, node: NodeSpec, units: Units) -> int | None:
    """The rank of a layer that is two thinner ones; None for any other node."""
    found = graph.ranks.get(node.name)
    return None if found is None or units[found.group] == found.full else units[found.group]


def params(op: Op) -> int:
    """Number of parameters."""
    graph, units = graph_of(op), units_of(op)
    unused = graph.unused(units)
    return sum(
        math.prod(weight.shape(units))
        for name, weight in graph.weights.items()
        if weight.parameter and name not in unused
    )


def activations(op: Op) -> int:
    """Peak number of live values for one image, operation by operation without fusion."""
    graph, units = graph_of(op), units_of(op)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.values}
    live = {"input": elements(graph.input, units)}
    peak = 0
    for i, node in enumerate(graph.nodes):
        # An output of several is counted where it is taken.
        made = 0 if node.sizes is None else elements(node.sizes, units)
        if (rank := _thin(graph, node, units)) is not None:
            out = graph.weights[graph.ranks[node.name].whole].shape(units)[0]
            between = made // out * rank
            peak = max(peak, sum(live.values()) + between)
            live = {name: size for name, size in live.items() if last.get(name) != i}
            peak = max(peak, sum(live.values()) + between + made)
        live[node.name] = made
        peak = max(peak, sum(live.values()))
        for name in node.values:
            if last[name] == i:
                live.pop(name, None)
    return peak
