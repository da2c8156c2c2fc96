"""Functions of an arch with one term per slot: their sum or their maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue

Floats = npt.NDArray[np.float64]
_Term = tuple[tuple[int, ...], Floats]  # the columns that index an array, and the array of numbers or vectors

_MERGED = 2**19  # bytes of a merged array: larger ones do not fit the cache, and hardly save lookups
_ROWS = 2048  # rows per chunk: they stay in the cache, too, and OpenBLAS is faster at products this small


@dataclass(frozen=True, kw_only=True)
class SlotSum:
    """``f(arch) = constant + Σ over slots  array of slot [values of the variables it reads]``.

    Attributes:
        constant: the part that does not depend on slots.
        axes: for each slot, the columns of a code that index its array.
        arrays: for each slot, an array with one axis per variable that it reads.
    """

    constant: float
    axes: tuple[tuple[int, ...], ...]
    arrays: tuple[Floats, ...]
    combine: ClassVar[np.ufunc] = np.add

    def __call__(self, codes: npt.NDArray[np.uint8]) -> Floats:
        """The function's value for each row: codes ``(n, variables)`` -> ``(n,)``.

        Codes are not checked: use `Space.canonical` to reject indices without a choice.
        """
        if len(self.arrays) == 1:  # nothing to merge, and searches create many such sums for a single use
            return self.constant + _gather(codes, self.axes[0], self.arrays[0])
        lookup, values = self._lookup, np.empty(len(codes))
        ones = np.ones(len(lookup.offsets))
        for start in range(0, len(codes), _ROWS):
            # For rows of a few entries, numpy's sum is ten times slower than a BLAS product with ones.
            rows = slice(start, start + _ROWS)
            values[rows] = np.take(lookup.table, lookup.places(codes[rows])) @ ones
        return values

    def per_slot(self, codes: npt.NDArray[np.uint8]) -> Floats:
        """The terms: codes ``(n, variables)`` -> ``(n, slots)``; a row plus the constant sums to the value."""
        return _terms(self, codes)

    @cached_property
    def _lookup(self) -> Lookup:
        return Lookup.of([((), np.array(self.constant)), *zip(self.axes, self.arrays, strict=True)])


@dataclass(frozen=True, kw_only=True)
class SlotMax:
    """``f(arch) = max of constant and, over slots,  array of slot [values of the variables it reads]``.

    Peak memory is such a function: activations occupy the memory one slot after another.

    Attributes:
        constant, axes, arrays: as in `SlotSum`, but not negative: the term of an empty slot is 0.

    Raises:
        InvalidValue: a term is negative.
    """

    constant: float
    axes: tuple[tuple[int, ...], ...]
    arrays: tuple[Floats, ...]
    combine: ClassVar[np.ufunc] = np.maximum

    def __post_init__(self) -> None:
        lowest = min([self.constant, *(float(array.min()) for array in self.arrays)])
        if lowest < 0:
            raise InvalidValue(f"the terms of a maximum over slots must be at least 0, not {lowest:g}")

    def __call__(self, codes: npt.NDArray[np.uint8]) -> Floats:
        """The function's value for each row: codes ``(n, variables)`` -> ``(n,)``."""
        largest: Floats = np.maximum(_terms(self, codes).max(axis=1), self.constant)
        return largest

    def per_slot(self, codes: npt.NDArray[np.uint8]) -> Floats:
        """The terms: codes ``(n, variables)`` -> ``(n, slots)``; the value of a row is their maximum."""
        return _terms(self, codes)


SlotFunction = SlotSum | SlotMax


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A sum of terms (numbers or vectors) with fewer lookups.

    A lookup costs more than the arithmetic around it, so terms are merged: one array over all the variables that
    they read holds their sum. Terms that read a subset of another term's variables (stem, head, constant) are then
    free, and blocks that share a depth and the resolution merge well: mobilenetv3's 24 slots take 7 lookups. The
    arrays are concatenated in one table, so that one product with the codes gives all indices.

    Attributes:
        strides: ``(columns, arrays)``; a row of codes times these is the index within each array.
        offsets: the offset of each array in the table, ``(arrays,)``.
        table: the entries of all arrays, ``(entries, *vector)``.
    """

    strides: npt.NDArray[np.floating[Any]]
    offsets: npt.NDArray[np.signedinteger[Any]]
    table: Floats

    @classmethod
    def of(cls, terms: list[_Term], *, dtype: type[np.floating[Any]] = np.float64) -> Lookup:
        """The lookup of a sum of at least one term.

        Args:
            terms: the columns of a code that index an array, and the array: ``(*choices, *vector)``.
            dtype: of the table; the terms are merged in double precision.
        """
        axes, array = terms[0]
        vector = array.shape[len(axes) :]
        groups = _grouped(terms, _MERGED // (np.dtype(dtype).itemsize * math.prod(vector)))
        arrays = [_joint(lengths, members, vector) for lengths, members in groups]
        ends = np.cumsum([math.prod(lengths.values()) for lengths, _ in groups])
        # Integers are exact in single precision up to 2**24, in double precision up to 2**53.
        single = ends[-1] <= 2**24
        columns = 1 + max((axis for lengths, _ in groups for axis in lengths), default=-1)
        strides = np.zeros((columns, len(groups)), np.float32 if single else np.float64)
        for i, (lengths, _) in enumerate(groups):
            stride = 1
            for axis, length in reversed(lengths.items()):
                strides[axis, i] = stride
                stride *= length
        integers: type[np.signedinteger[Any]] = np.int32 if single else np.int64
        offsets = np.zeros(len(groups), integers)
        offsets[1:] = ends[:-1]
        table = np.concatenate([array.reshape(-1, *vector) for array in arrays], dtype=dtype)
        return cls(strides=strides, offsets=offsets, table=table)

    def places(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.signedinteger[Any]]:
        """Rows of the table whose sum is the value: codes ``(n, variables)`` -> ``(n, arrays)``."""
        rows = codes[:, : len(self.strides)].astype(self.strides.dtype)
        within: npt.NDArray[np.signedinteger[Any]] = (rows @ self.strides).astype(self.offsets.dtype)
        return within + self.offsets


def _grouped(terms: list[_Term], most: int) -> list[tuple[dict[int, int], list[_Term]]]:
    """Terms that share an array, with its axes: column -> length.

    The largest come first; each is merged into the array that grows least, if that array does not grow or stays within
    the limit of entries.
    """
    groups: list[tuple[dict[int, int], list[_Term]]] = []
    for axes, array in sorted(terms, key=lambda term: -term[1].size):
        own = {axis: length for axis, length in zip(axes, array.shape, strict=False) if length > 1}
        growth = {}
        for i, (lengths, _) in enumerate(groups):
            before, after = math.prod(lengths.values()), math.prod((lengths | own).values())
            if after <= max(before, most):
                growth[i] = after / before
        if growth:
            lengths, members = groups[min(growth, key=growth.__getitem__)]
            lengths.update(own)
            members.append((axes, array))
        else:
            groups.append((own, [(axes, array)]))
    return groups


def _joint(lengths: dict[int, int], members: list[_Term], vector: tuple[int, ...]) -> Floats:
    """The sum of terms over all of their variables, ``(*lengths, *vector)``."""
    array = np.zeros((*lengths.values(), *vector))
    places = dict(zip(lengths, np.indices(tuple(lengths.values()), sparse=True), strict=True))
    for axes, own in members:
        array += own[tuple(places.get(axis, 0) for axis in axes)]  # a variable with one value has no axis
    return array


def _terms(function: SlotFunction, codes: npt.NDArray[np.uint8]) -> Floats:
    """The terms: codes ``(n, variables)`` -> ``(n, slots)``."""
    return np.stack([_gather(codes, a, t) for a, t in zip(function.axes, function.arrays, strict=True)], axis=1)


def _gather(codes: npt.NDArray[np.uint8], axes: tuple[int, ...], array: Floats) -> Floats:
    """One lookup per row through a flat index: several times faster than indexing with a tuple of columns."""
    index = np.zeros(len(codes), np.intp)
    for axis, length in zip(axes, array.shape, strict=True):
        index *= length
        index += codes[:, axis]
    return np.take(array.reshape(-1), index)
