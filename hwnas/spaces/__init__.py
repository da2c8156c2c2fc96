"""Search spaces: the networks to choose from, and the cost of each choice."""

from __future__ import annotations

from hwnas.spaces.catalog import SPACES, Family, make_space, notation_of, space_names
from hwnas.spaces.domain import Domain
from hwnas.spaces.ops import Op, make_op, parse_op
from hwnas.spaces.slots import Slot, Variable
from hwnas.spaces.slotsum import SlotFunction, SlotMax, SlotSum
from hwnas.spaces.space import Arch, Codes, Space

__all__ = [
    "SPACES",
    "Arch",
    "Codes",
    "Domain",
    "Family",
    "Op",
    "Slot",
    "SlotFunction",
    "SlotMax",
    "SlotSum",
    "Space",
    "Variable",
    "make_op",
    "make_space",
    "notation_of",
    "parse_op",
    "space_names",
]
