"""Variables, and the slots that read them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from hwnas.spaces.ops import Op


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A categorical variable.

    Attributes:
        name: a Python identifier, e.g. ``kernel_2_3`` (stage 2, block 3; counted from 1).
        values: the choices, ascending.
        requires: name of another variable and the least value of it at which this one matters. The kernel of a
            third block requires a depth of 3; at depth 2 it has no effect.
    """

    name: str
    values: tuple[int, ...]
    requires: tuple[str, int] | None = None


def always() -> bool:
    """A slot that the network has whatever the variables say."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A place in the network.

    Attributes:
        name: e.g. ``stage2.block3``.
        group: the slots that share a context factor in the latency model, e.g. ``stage2``.
        variables: names of the variables it reads, the axes of its cost array.
        op: from the values of those variables, in that order, to the op, or None where nothing stands here.
        needed_by, needed: variables, and from their values to whether the network has what stands here: an edge into a
            node that nothing leaves costs nothing, nor does what is computed elsewhere already.
    """

    name: str
    group: str
    variables: tuple[str, ...]
    op: Callable[..., Op | None]
    needed_by: tuple[str, ...] = ()
    needed: Callable[..., bool] = always


@cache
def needed(slot_needed: Callable[..., bool], values: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.bool_]:
    """Whether a slot is needed, by the values of the variables that say so."""
    found = [slot_needed(*chosen) for chosen in itertools.product(*values)]
    return np.array(found).reshape([len(choices) for choices in values])
