"""Archs, and the conditions under which their values have an effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwnas.spaces.slots import Value


@dataclass(frozen=True, slots=True)
class Arch(Mapping[str, Value]):
    """One value for each variable of a space: an immutable, hashable mapping.

    Variables without effect (see `Variable.matters`) hold their first value, so archs of the same network are equal.
    """

    space: str
    items_: tuple[tuple[str, Value], ...]

    def __getitem__(self, name: str) -> Value:
        for key, value in self.items_:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items_)

    def __len__(self) -> int:
        return len(self.items_)


class Condition(NamedTuple):
    """A condition of a variable.

    Attributes:
        column: of the variable that it depends on.
        matters: for each value of that variable whether this one has an effect, ``(values,)``.
    """

    column: int
    matters: npt.NDArray[np.bool_]
