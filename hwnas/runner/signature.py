"""Names, shapes and data types of a program's inputs and outputs, and arrays as messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

Feeds = dict[str, "np.ndarray[Any, Any]"]  # name of an input -> its array
Axes = tuple[Optional[int], ...]  # None for an axis whose size is known only in a run
DTYPES = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
)


class BadFeeds(Exception):
    """Arrays that are not inputs of a program."""


@dataclass(frozen=True)
class Value:
    """An input or an output.

    Attributes:
        name: of the value.
        shape: its axes.
        dtype: numpy's name of its type, one of `DTYPES`.
    """

    name: str
    shape: Axes
    dtype: str = "float32"

    @property
    def text(self) -> str:
        """Name, type and shape in words."""
        axes = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
        return f"{self.name}: {self.dtype} [{axes}]"

    def noise(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """A random array.

        Floats are normally distributed. Integers are 0 or 1, which are valid as indices of tokens, as masks and as
        lengths; bytes are images, and have all values.

        Raises:
            BadFeeds: an axis has no size.
        """
        shape = [axis for axis in self.shape if axis is not None]
        if len(shape) < len(self.shape):
            raise BadFeeds(f"{self.text} has an axis without a size")
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return np.asarray(rng.standard_normal(shape, np.float32), dtype)
        return np.asarray(rng.integers(0, 256 if dtype == np.uint8 else 2, shape), dtype)


@dataclass(frozen=True)
class Signature:
    """The inputs and the outputs of a program, in its order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    def noise(self, rng: np.random.Generator) -> Feeds:
        """Random inputs."""
        return {value.name: value.noise(rng) for value in self.inputs}

    def checked(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Feeds:
        """Inputs in the program's order, contiguous.

        Raises:
            BadFeeds: one is missing, unknown, or of another shape or type.
        """
        names = [value.name for value in self.inputs]
        if set(feeds) != set(names):
            raise BadFeeds(f"the program has the inputs {', '.join(names)}, not {', '.join(feeds) or 'none'}")
        found = {}
        for value in self.inputs:
            array = feeds[value.name]
            fits = len(array.shape) == len(value.shape) and all(
                axis in (None, size) for axis, size in zip(value.shape, array.shape)
            )
            if not fits or str(array.dtype) != value.dtype:
                raise BadFeeds(f"{value.text} was given as {array.dtype} {list(array.shape)}")
            found[value.name] = np.require(array, requirements=["C", "W"])
        return found


def packed(arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[list[Any], bytes]:
    """Arrays as a list of ``[name, type, shape]`` and their bytes."""
    facts = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    return facts, b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())


def unpacked(facts: Sequence[Sequence[Any]], data: bytes) -> Feeds:
    """The arrays of `packed`.

    Raises:
        BadFeeds: a type is unknown, or the number of bytes is wrong.
    """
    found, start = {}, 0
    for name, dtype, shape in facts:
        if dtype not in DTYPES:
            raise BadFeeds(f"{name} has the type {dtype}")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if start + size > len(data):
            raise BadFeeds(f"{len(data)} bytes are too few for {name}")
        found[str(name)] = np.frombuffer(data[start : start + size], dtype).reshape(shape).copy()
        start += size
    if start != len(data):
        raise BadFeeds(f"{len(data)} bytes for arrays of {start}")
    return found
