"""Variables, and the slots that read them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwnas.spaces.ops import Op

Value: TypeAlias = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A categorical variable.

    Attributes:
        name: a Python identifier, e.g. ``kernel_2_3`` (stage 2, block 3; counted from 1).
        values: the choices: integers, ascending, or texts, in any order.
        matters: name of another variable and the values of it for which this one has an effect. The kernel of a third
            block matters for depths of 3 and more, the heads of an attention where the mixer is one.
    """

    name: str
    values: tuple[Value, ...]
    matters: tuple[str, tuple[Value, ...]] | None = None


def from_depth(depth: Variable, block: int) -> tuple[str, tuple[Value, ...]] | None:
    """The condition `Variable.matters` of a variable of a block that exists only from some depth on.

    Args:
        depth: the variable whose values are numbers of blocks.
        block: number of the block, counted from 1.

    Returns:
        the name of the depth and its values that have the block; None if all have it.
    """
    enough = tuple(value for value in depth.values if isinstance(value, int) and value >= block)
    return None if enough == depth.values else (depth.name, enough)


def own_values(block: int, optional: bool, values: tuple[Value, ...]) -> tuple[Value, ...] | None:
    """What a slot of a block reads beside the depth.

    Args:
        block: number of the block, counted from 1.
        optional: whether the slot reads the depth, as the first of `values`: where `from_depth` gives a condition.
        values: the values that the slot reads.

    Returns:
        `values` without the depth; None if the depth leaves the block out.
    """
    if not optional:
        return values
    depth, *own = values
    return tuple(own) if int(depth) >= block else None


def always() -> bool:
    """Condition of a slot that every network needs."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A position in the network.

    Attributes:
        name: e.g. ``stage2.block3``.
        group: the slots that share a context factor in the latency model, e.g. ``stage2``.
        variables: names of the variables it reads, the axes of its cost array.
        op: values of those variables, in that order -> the op, or None for an empty slot.
        needed_by, needed: variables, and a function of their values: whether the network needs the op. An edge into a
            node without readers costs nothing, nor does a value that is already computed elsewhere.
    """

    name: str
    group: str
    variables: tuple[str, ...]
    op: Callable[..., Op | None]
    needed_by: tuple[str, ...] = ()
    needed: Callable[..., bool] = always


@cache
def needed(slot_needed: Callable[..., bool], values: tuple[tuple[Value, ...], ...]) -> npt.NDArray[np.bool_]:
    """Whether a slot is needed, by the values of the variables that it depends on."""
    found = [slot_needed(*chosen) for chosen in itertools.product(*values)]
    return np.array(found).reshape([len(choices) for choices in values])
