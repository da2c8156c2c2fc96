"""What every machine can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from hwnas.files import Journal
from hwnas.lowering import Form, Program
from hwnas.progress import Progress, silent
from hwnas.targets import Host, Recipe, Target
from hwnas.timing import Measurement, Protocol


class Machine(ABC):
    """Where programs are timed: what it is, which programs it takes, and their times on it.

    Implementations differ in where a program runs, not in what a time is: `time` follows the protocol that it is given.
    """

    @abstractmethod
    def host(self) -> Host:
        """What the machine reports of its hardware."""

    @abstractmethod
    def check(self, target: Target) -> None:
        """Refuse a target that cannot be measured on this machine, before any work.

        Raises:
            TableError: the machine is not the target's device; lists what differs.
            InvalidValue: the process does not have the cores that the recipe needs.
            RuntimeUnavailable: the runtime is not one that is timed.
        """

    @abstractmethod
    def versions(self, target: Target) -> dict[str, str]:
        """Versions of what a measurement depends on, the runtime's under its name.

        Raises:
            RuntimeUnavailable: the runtime cannot run on the machine.
        """

    @abstractmethod
    def facts(self, target: Target) -> dict[str, object]:
        """What a manifest records of the machine: its hardware, clocks and cores."""

    @abstractmethod
    def cores(self, recipe: Recipe) -> str:
        """Cores that a recipe is timed on, e.g. ``4-5``; empty where they cannot be chosen."""

    @abstractmethod
    def form(self, recipe: Recipe) -> Form:
        """The form of the programs that `time` takes under a recipe."""

    @abstractmethod
    def time(
        self,
        programs: Mapping[str, Program | Path],
        recipe: Recipe,
        protocol: Protocol,
        *,
        reference: str | None = None,
        journal: Journal | None = None,
        what: str = "timing",
        progress: Progress = silent,
    ) -> Measurement:
        """Time programs, all in the same passes: the arguments and errors of `hwnas.timing.time_programs`."""
