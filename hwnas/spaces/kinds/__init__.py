"""Kinds of ops: one record each, which holds all that the packages need to know of a kind.

To add a kind, add a record to one of the dictionaries here, and the module that it names. A package outside hwnas adds
its record to `KINDS` before it makes ops of that kind.
"""

from __future__ import annotations

from hwnas.spaces.kinds.base import TEXTS, InnerChannels, OpKind, make_divisible, squeeze_width
from hwnas.spaces.kinds.cells import CELLS
from hwnas.spaces.kinds.convolutions import CONVOLUTIONS
from hwnas.spaces.kinds.tokens import TOKENS
from hwnas.spaces.traced import costs

__all__ = ["KINDS", "TEXTS", "InnerChannels", "OpKind", "make_divisible", "squeeze_width"]

_SEGMENTS: dict[str, OpKind] = {
    # a part of a traced network, by its graph and the units of each of the graph's groups
    "segment": OpKind(
        module="hwnas.nn.segment:segment",
        attributes=frozenset({"graph", "sizes"}),
        macs=costs.macs,
        params=costs.params,
        activations=costs.activations,
        takes="hwnas.nn.segment:taken",
        shared="hwnas.nn.segment:shared",
        own_eps=True,
    ),
}
KINDS: dict[str, OpKind] = {**CONVOLUTIONS, **CELLS, **TOKENS, **_SEGMENTS}
