"""What the runner needs of a runtime: load a program, run it, time it."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

import numpy as np

from hwnas.runner.signature import Feeds, Signature

Call = Callable[[], object]
Source = Union[str, bytes]  # the name of a program's file, or its content
_WARM_UP = 2  # untimed runs before others of a kind
_TURN = 6  # runs with a profiler before as many without, at most
_TURN_MS = 20.0  # or fewer that take this long: a machine with others on it changed its speed every 0.1 to 0.4 s
BATCH = "batch"  # name of a symbolic batch axis in ONNX graphs


@dataclass(frozen=True)
class Layer:
    """A layer of a compiled program: what a runtime executes at once.

    Attributes:
        name: in the compiled program.
        kind: operator, or the runtime's name of a fused group.
        ms: mean time of the runs that count (`layer_times`).
        detail: what the runtime says about it: its kernel, or the nodes that were fused.
        inputs, outputs: shapes, if the runtime gives them.
        variant: what its time depends on beside the kind and the shapes: fused operators, or attributes, separated by
            commas, without spaces.
    """

    name: str
    kind: str
    ms: float
    detail: str = ""
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()
    variant: str = ""


@dataclass(frozen=True)
class LayerRuns:
    """The layers of a program, and its latency beside them.

    Attributes:
        layers: with their times.
        whole_ms: time without the profiler, at the same speed of the machine (`layer_times`). None if only one run had
            the profiler.
    """

    layers: list[Layer]
    whole_ms: float | None

    def at_speed_of(self, ms: float) -> list[Layer]:
        """The layers as if the program had taken `ms` beside them.

        It is timed at another moment. On a machine that other programs slowed meanwhile, layers summed to 71% of it.
        """
        speed = ms / self.whole_ms if self.whole_ms else 1.0
        return [replace(one, ms=one.ms * speed) for one in self.layers]


def layer_times(
    runs: np.ndarray[Any, Any], turns: Sequence[Sequence[float]]
) -> tuple[np.ndarray[Any, Any], float | None]:
    """Times of layers, and of the program without a profiler at the same speed of the machine.

    A machine that other programs share changes its speed within a second: 104 layers summed to 82% of the program, and
    from one profile to the next by 20%. So the two are compared within each turn, and the median turn counts. Turns are
    short: in turns of six runs of 30 ms, 88 layers summed to 82% of the program again.

    Args:
        runs: times with the profiler, of shape (runs, layers).
        turns: times of as many runs without, in turns with those; empty if there are none.

    Returns:
        mean times of the layers over the faster half of the runs, of shape (layers,); and the program's time, None if
        there are no turns.
    """
    ms = _quiet(runs)
    if not turns:
        return ms, None
    starts = np.cumsum([0, *(len(plain) for plain in turns)])
    ratios = [
        _quiet(runs[start : start + len(plain)]).sum() / _quiet(np.c_[plain])[0] for start, plain in zip(starts, turns)
    ]
    ratio = float(np.median(ratios))
    if not ratio or not ms.any():  # layers that are shorter than the profiler's clock tells
        return ms, float(_quiet(np.c_[np.concatenate(turns)])[0])
    return ms, float(ms.sum() / ratio)


def _quiet(runs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean times over the faster half of the runs: (runs, layers) -> (layers,). They sum to that of the program.

    Medians do not: where an interruption hits most runs, but each time another layer, those of the layers miss it.
    """
    order = np.argsort(runs.sum(axis=1), kind="stable")
    return np.asarray(runs[order[: (len(runs) + 1) // 2]].mean(axis=0))


class CannotLoad(Exception):
    """A runtime does not accept a program."""


class Timed(ABC):
    """A loaded program that can be timed.

    Attributes:
        shape: of its input, with the batch axis.
        dtype: of its input: float32, uint8 if the program includes the normalisation, or int64 for tokens.
        opens_in_threads: whether loading several programs in several threads at once is safe and faster.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] = np.dtype(np.float32)
    opens_in_threads = False

    @abstractmethod
    def bind(self, x: np.ndarray[Any, Any]) -> Call:
        """A call that runs the program on `x` without copies and with a preallocated output."""

    @abstractmethod
    def again(self) -> Timed:
        """The same program loaded again, elsewhere in memory."""

    @abstractmethod
    def close(self) -> None:
        """Free the program."""

    def time_ms(self, call: Call) -> float:
        """Run a bound call and return its duration in milliseconds."""
        start = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - start) / 1e6

    def noise(self, rng: np.random.Generator) -> np.ndarray[Any, Any]:
        """A random input: normally distributed, of random bytes if it is uint8, or of tokens 0 and 1 if it is int64."""
        if self.dtype == np.int64:
            return rng.integers(0, 2, self.shape, np.int64)
        if self.dtype == np.uint8:
            return rng.integers(0, 256, self.shape, np.uint8)
        return rng.standard_normal(self.shape, np.float32)

    def bind_noise(self, rng: np.random.Generator) -> Call:
        """A call that runs the program on a random input (`bind`)."""
        return self.bind(self.noise(rng))

    def bind_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Call:
        """A call that runs the program on named inputs (`bind`)."""
        [x] = feeds.values()
        return self.bind(x)

    def threads(self) -> contextlib.AbstractContextManager[None]:
        """Context of process-wide settings in which bound calls use the right number of threads."""
        return contextlib.nullcontext()


class RunnerProgram(Timed):
    """A program in a runtime that the runner drives alone.

    Args:
        source: the program's file or content.
        threads: threads of a run.
        precision: data type of weights and activations.
        options: settings of the runtime, which were checked before.
        batch: images of a run of a program with a symbolic batch axis, which the runtime then compiles like one with a
            fixed batch; None for any number of images, which count as one in `shape`.

    Attributes:
        signature: its inputs and outputs.

    Raises:
        CannotLoad: the runtime does not accept the program, or `batch` is None and the program's batch is fixed.
    """

    signature: Signature

    @abstractmethod
    def __init__(
        self, source: Source, *, threads: int, precision: str, options: Mapping[str, Any], batch: int | None = 1
    ) -> None: ...

    @staticmethod
    @abstractmethod
    def version() -> str:
        """Version of the runtime's library."""

    @classmethod
    def missing(cls, precision: str) -> list[str]:
        """Why the runtime cannot compute in this precision on this machine, with remedies."""
        return []

    @abstractmethod
    def run_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Feeds:
        """Name of an input -> array, name of an output -> array in its own type."""

    @abstractmethod
    def bind_feeds(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> Call:
        """A call that runs the program on named inputs without copies; outputs of known shape are preallocated."""

    @abstractmethod
    def layers(self, feeds: Mapping[str, np.ndarray[Any, Any]], runs: int) -> LayerRuns:
        """Times of the layers of the compiled program, in milliseconds.

        Args:
            feeds: the inputs.
            runs: number of timed runs, of which the faster half counts.
        """

    def _in_turns(
        self, profiled: Callable[[bool], object], feeds: Mapping[str, np.ndarray[Any, Any]], runs: int
    ) -> list[list[float]]:
        """Run the program with a profiler and without, in turns of `_TURN` runs or of `_TURN_MS`.

        Args:
            profiled: a run with the profiler; its argument says whether the run counts.
            feeds: inputs of the runs without.
            runs: number of runs that count, of each kind.

        Returns:
            times of the runs without the profiler, in ms, by turn; empty if `runs` is 1.
        """
        turns: list[list[float]] = []
        plain = self.bind_feeds(feeds) if runs > 1 else None
        length = runs
        if plain is not None:
            fastest = min(self.time_ms(plain) for _ in range(_WARM_UP))
            length = min(max(int(_TURN_MS / max(fastest, 1e-6)), 1), _TURN)
        for start in range(0, runs, length):
            # A program that runs once in a turn is too large for the caches that a run before it would fill.
            warm_up = min(_WARM_UP, length - 1) if start else _WARM_UP
            counted = range(-warm_up, min(length, runs - start))
            for i in counted:
                profiled(i >= 0)
            if plain is not None:
                times = [self.time_ms(plain) for _ in counted]
                turns.append(times[warm_up:])
        return turns

    def run(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The only input, of `shape` or any number of images -> the only output, in float32."""
        [entry] = self.signature.inputs
        [y] = self.run_feeds({entry.name: x}).values()
        return np.asarray(y, np.float32)

    def bind(self, x: np.ndarray[Any, Any]) -> Call:
        """A call that runs the program on its only input without copies and with a preallocated output."""
        [entry] = self.signature.inputs
        return self.bind_feeds({entry.name: x})

    def bind_noise(self, rng: np.random.Generator) -> Call:
        """A call that runs the program on random inputs."""
        if len(self.signature.inputs) == 1 and self.dtype in (np.float32, np.uint8):
            return self.bind(self.noise(rng))  # an image, in a batch of any size
        return self.bind_feeds(self.signature.noise(rng))

    def _describe(self, signature: Signature, batch: int | None) -> None:
        """Set the signature and what follows from it.

        Args:
            signature: axis 0 of a program that takes any number of images is None.
            batch: as for the class.

        Raises:
            CannotLoad: an axis of an input has no size; any number of images is to be run, but the batch is fixed.
        """
        self.signature, first = signature, signature.inputs[0]
        self.shape, self.dtype = input_shape(first.shape, batch), np.dtype(first.dtype)
        for value in signature.inputs:
            if None in (value.shape[1:] if value is first and batch is None else value.shape):
                raise CannotLoad(f"the input {value.text} has an axis without a size: fix it with --shape")


def input_shape(axes: Sequence[int | None], batch: int | None) -> tuple[int, ...]:
    """The shape of a program's input.

    Args:
        axes: its axes; None for a symbolic one.
        batch: as for `RunnerProgram`.

    Raises:
        CannotLoad: any number of images is to be run, but the batch axis is not symbolic.
    """
    if batch is None and None not in axes[:1]:
        raise CannotLoad("the program takes a fixed number of images in a run: export it again")
    return tuple((batch or 1) if axis is None else axis for axis in axes)


def readable(source: Source) -> Source:
    """A program for runtimes whose file names must be UTF-8: the content of a file with another name."""
    if isinstance(source, str):
        try:
            source.encode()
        except UnicodeEncodeError:
            return Path(source).read_bytes()
    return source


def shown(source: Source) -> str:
    """How a program is named in messages."""
    return source.replace("\\", "/").rsplit("/", 1)[-1] if isinstance(source, str) else "the graph"
