"""Spaces of a traced network: its widths, heads and blocks are the variables."""

from hwnas.spaces.traced.classes import with_classes
from hwnas.spaces.traced.known import NETWORK, graph_named, known_network, network_named, read_network, remember
from hwnas.spaces.traced.spec import GroupSpec, NetworkSpec, NodeSpec, RankSpec, SegmentGraph, SegmentSpec, WeightSpec

__all__ = [
    "NETWORK",
    "GroupSpec",
    "NetworkSpec",
    "NodeSpec",
    "RankSpec",
    "SegmentGraph",
    "SegmentSpec",
    "WeightSpec",
    "graph_named",
    "known_network",
    "network_named",
    "read_network",
    "remember",
    "with_classes",
]
