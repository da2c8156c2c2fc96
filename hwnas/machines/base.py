"""The interface of machines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwnas.errors import RuntimeUnavailable
from hwnas.files import Journal
from hwnas.lowering import Form, Program
from hwnas.progress import Progress, silent
from hwnas.runner.program import LayerRuns
from hwnas.runner.signature import Feeds
from hwnas.targets import Host, Recipe, Target
from hwnas.timing import Measurement, Protocol


class Machine(ABC):
    """A place where programs are timed: its hardware, the form of its programs, and their times.

    Implementations differ in where a program runs, not in how it is timed: `time` follows the given protocol.

    Attributes:
        name: of the machine, for messages.
    """

    name: str = "this host"

    @abstractmethod
    def host(self) -> Host:
        """The hardware facts that the machine reports."""

    @abstractmethod
    def check(self, target: Target) -> None:
        """Check, before any work, that a target can be measured on this machine.

        Raises:
            TableError: the machine is not the target's device; the message lists the differences.
            InvalidValue: the process does not have the cores that the recipe needs.
            RuntimeUnavailable: the runtime cannot be timed.
        """

    @abstractmethod
    def versions(self, target: Target) -> dict[str, str]:
        """Versions of the software that a measurement depends on, the runtime's under its name.

        Raises:
            RuntimeUnavailable: the runtime cannot run on the machine.
        """

    @abstractmethod
    def facts(self, target: Target) -> dict[str, object]:
        """Facts about the machine for a manifest: hardware, clocks and cores."""

    @abstractmethod
    def cores(self, recipe: Recipe) -> str:
        """Cores for timing a recipe, e.g. ``4-5``; empty if they cannot be chosen."""

    @abstractmethod
    def form(self, recipe: Recipe) -> Form:
        """The form of programs for `time` under a recipe."""

    @abstractmethod
    def time(
        self,
        programs: Mapping[str, Program | Path],
        recipe: Recipe,
        protocol: Protocol,
        *,
        reference: str | None = None,
        journal: Journal | None = None,
        feeds: Feeds | None = None,
        what: str = "timing",
        progress: Progress = silent,
    ) -> Measurement:
        """Time programs in common passes: arguments and errors as for `hwnas.timing.time_programs`.

        With `feeds`, every program is run on these named inputs instead of random ones.
        """

    @abstractmethod
    def run(self, program: Path, recipe: Recipe, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run a program's file on one input after the other.

        Args:
            program: the file.
            recipe: its runtime and settings.
            inputs: float32 or uint8, ``(n, *shape)`` with the program's input shape.

        Returns:
            the outputs, ``(n, *output shape)``.

        Raises:
            BundleError: the runtime does not accept the program or the input.
            RuntimeUnavailable: the runtime cannot run on the machine.
        """

    def run_feeds(self, program: Path, recipe: Recipe, feeds: Sequence[Feeds]) -> list[Feeds]:
        """Run a program's file on named inputs, one run after the other.

        Args:
            program: the file.
            recipe: its runtime and settings.
            feeds: for each run, name of an input -> array.

        Returns:
            for each run, name of an output -> array in its own type.

        Raises:
            BundleError: the runtime does not accept the program or the input.
            RuntimeInputError: an input is missing, unknown, or of another shape or type.
            RuntimeUnavailable: the runtime cannot run on the machine, or takes a single image only.
        """
        raise RuntimeUnavailable(f"{recipe.name} runs programs of one input only on {self.name}")

    def layers(
        self, programs: Mapping[str, Path], recipe: Recipe, feeds: Feeds | None = None, *, runs: int
    ) -> dict[str, LayerRuns]:
        """Times of the layers of programs' files, in milliseconds.

        Args:
            programs: name -> file.
            recipe: their runtime and settings.
            feeds: named inputs of every program; random ones if None.
            runs: number of runs of each with the profiler, of which the median counts, and of as many without.

        Raises:
            BundleError: the runtime does not accept a program.
            RuntimeUnavailable: the runtime cannot run on the machine, or does not report layers.
        """
        raise RuntimeUnavailable(f"{recipe.name} does not report the times of layers on {self.name}")
