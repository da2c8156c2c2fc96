"""Where samples come from: programs that are opened and visited, here or elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np

from hwnas.runner.visits import Sample, no_garbage_collection, visit
from hwnas.timing.protocol import Protocol


class Sampler(ABC):
    """Opens programs and runs them; `hwnas.timing.timer.take` says which and when."""

    @abstractmethod
    def reopen(self, names: Sequence[str], seed: tuple[int, int]) -> Collection[str]:
        """Reopen the first of some programs, as many as fit into memory, at least one, in this order.

        Args:
            names: of the programs; others may be closed.
            seed: of their inputs.

        Returns:
            the open programs.

        Raises:
            ProgramCrashed: opening a program ended the process that did so.
            OutOfMemory: not even one program fits.
        """

    @abstractmethod
    def visits(self, plan: Sequence[tuple[str, str]], protocol: Protocol) -> Iterator[tuple[str, list[float]]]:
        """Run open programs one after the other: key of a visit and its samples in milliseconds, as they come.

        Args:
            plan: key of each visit and the program's name.
            protocol: duration and number of a visit's runs.

        Raises:
            ProgramCrashed: running a program ended the process that did so.
        """


class SamplesHere(Sampler):
    """Samples of programs that a function opens in this process.

    Args:
        anew: reopens the first of some programs, and returns name -> function that runs it once and returns the time in
            milliseconds.
    """

    def __init__(self, anew: Callable[[Sequence[str], np.random.Generator], Mapping[str, Sample]]) -> None:
        self._anew = anew
        self._calls: Mapping[str, Sample] = {}
        self._collected = False

    def reopen(self, names: Sequence[str], seed: tuple[int, int]) -> Collection[str]:
        """As `Sampler.reopen`."""
        self._calls = {}  # it references the sessions
        self._calls = self._anew(names, np.random.default_rng(seed))
        return self._calls.keys()

    def visits(self, plan: Sequence[tuple[str, str]], protocol: Protocol) -> Iterator[tuple[str, list[float]]]:
        """As `Sampler.visits`."""
        collect, self._collected = not self._collected, True
        with no_garbage_collection(collect=collect):
            for key, name in plan:
                yield key, visit(self._calls[name], *protocol.of_visit)
