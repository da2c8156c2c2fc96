"""Costs of the segments of a traced network, counted from their operations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwnas.spaces.traced.known import graph_named
from hwnas.spaces.traced.spec import NodeSpec, SegmentGraph, Units, elements

if TYPE_CHECKING:
    from hwnas.spaces.ops import Op

PREFIX = "u"  # of the attribute ``sizes``, u16.32: it is a text also for one number
CONVOLUTIONS, LINEAR = ("aten.conv1d.default", "aten.conv2d.default"), "aten.linear.default"


def units_of(op: Op) -> tuple[int, ...]:
    """Units of each group of an op's graph, from its attribute ``sizes``."""
    text = str(op["sizes"]).removeprefix(PREFIX)
    return tuple(map(int, text.split("."))) if text else ()


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
    weight = graph.weights[str(arg["weight"])].shape(units)
    return elements(node.sizes, units) * math.prod(weight[1:])


def params(op: Op) -> int:
    """Number of parameters."""
    graph, units = graph_of(op), units_of(op)
    return sum(math.prod(weight.shape(units)) for weight in graph.weights.values() if weight.parameter)


def activations(op: Op) -> int:
    """Peak number of live values for one image, operation by operation without fusion."""
    graph, units = graph_of(op), units_of(op)
    last = {name: i for i, node in enumerate(graph.nodes) for name in node.values}
    live = {"input": elements(graph.input, units)}
    peak = 0
    for i, node in enumerate(graph.nodes):
        # An output of several is counted where it is taken.
        live[node.name] = 0 if node.sizes is None else elements(node.sizes, units)
        peak = max(peak, sum(live.values()))
        for name in node.values:
            if last[name] == i:
                live.pop(name, None)
    return peak
