"""Search spaces: the networks to choose from, and the cost of each choice."""

from __future__ import annotations

from hwnas.spaces.arch import Arch, Condition
from hwnas.spaces.catalog import (
    SPACES,
    Adjustable,
    Family,
    TokenFamily,
    absolute_space,
    make_space,
    notation_of,
    space_name,
    space_names,
    space_options,
)
from hwnas.spaces.domain import Domain
from hwnas.spaces.inputs import InputKind
from hwnas.spaces.ops import Op, make_op, parse_op
from hwnas.spaces.options import SpaceFile, SpaceOptions, StageOptions, base_of
from hwnas.spaces.slots import Slot, Value, Variable, from_depth
from hwnas.spaces.slotsum import SlotFunction, SlotMax, SlotSum
from hwnas.spaces.space import Codes, Space

__all__ = [
    "SPACES",
    "Adjustable",
    "Arch",
    "Codes",
    "Condition",
    "Domain",
    "Family",
    "InputKind",
    "Op",
    "Slot",
    "SlotFunction",
    "SlotMax",
    "SlotSum",
    "Space",
    "SpaceFile",
    "SpaceOptions",
    "StageOptions",
    "TokenFamily",
    "Value",
    "Variable",
    "absolute_space",
    "base_of",
    "from_depth",
    "make_op",
    "make_space",
    "notation_of",
    "parse_op",
    "space_name",
    "space_names",
    "space_options",
]
