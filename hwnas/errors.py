"""Every error that hwnas raises on purpose.

::

    HwnasError                    a user can act on it: one message, exit code 2, no traceback
    ├── SpecError                 a TOML or JSON file says something that it may not say
    ├── UnknownName               no device, recipe, space, variable ... has that name
    ├── InvalidValue              an argument outside its range
    ├── TableError                a latency table cannot be used
    │   ├── TableCorrupt          its rows do not match its manifest, or are not latencies
    │   ├── TableMismatch         it was made with another recipe or for another target
    │   └── MissingOp             it lacks an op that the space needs
    ├── TooNoisy                  the machine was too unsteady for a measurement to be trusted
    ├── InfeasibleBudget          no network of the space keeps the budgets
    ├── SearchStopped             a search was stopped before it found a network
    ├── RuntimeUnavailable        a runtime cannot run here
    ├── PluginError               an object of another package, or of a user's file, cannot be used
    ├── RuntimeInputError         a runtime was given an input of the wrong shape or type, or was closed
    ├── DataError                 a dataset is empty, broken or not of the form asked for
    ├── CheckpointError           a supernet's files are not what is asked for
    ├── TrainingDiverged          a loss is NaN or infinite
    ├── OutOfMemory               a batch or a program does not fit into the memory
    ├── ProcessLost               one of a training's processes ended before the others
    ├── GraphError                a lowered graph is not one that its runtime takes
    ├── ParityError               the lowered network computes something else
    ├── BundleError               a bundle is incomplete or was changed
    └── OutputError               a file or folder cannot be written
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class HwnasError(Exception):
    """What was wrong, the value, what would be right, and the command that helps."""


class SpecError(HwnasError):
    """A TOML or JSON file says something that it may not say."""


class UnknownName(HwnasError):
    """No device, recipe, space, variable or dataset has that name."""

    def __init__(self, what: str, name: object, choices: Iterable[object], hint: str = "") -> None:
        known = [str(choice) for choice in choices]
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        suggestion = f" Did you mean {near[0]!r}?" if near else ""
        listing = ", ".join(known) if known else "none"
        super().__init__(f"unknown {what} {str(name)!r}.{suggestion} Known: {listing}." + (f" {hint}" if hint else ""))
        self.choices = known


class InvalidValue(HwnasError):
    """An argument outside its range."""


class TableError(HwnasError):
    """A latency table cannot be used."""


class TableCorrupt(TableError):
    """The rows of a table do not match its manifest, or are not latencies."""


class TableMismatch(TableError):
    """A table was made with another recipe or for another target."""


class MissingOp(TableError):
    """A table lacks an op that the space needs."""


class TooNoisy(HwnasError):
    """The machine was too unsteady for a measurement to be trusted."""


class InfeasibleBudget(HwnasError):
    """No network of the space keeps the budgets.

    Attributes:
        objectives: names of those whose budgets cannot be kept: one alone, or several together.
        lowest: the least value that the last of them can have within the budgets of the others; NaN if that was not
            computed.
        arch: the network of that value, where one objective cannot be kept alone; else None.
    """

    def __init__(
        self, message: str, *, objectives: tuple[str, ...], lowest: float = math.nan, arch: object | None = None
    ) -> None:
        super().__init__(message)
        self.objectives = objectives
        self.lowest = lowest
        self.arch = arch


class SearchStopped(HwnasError):
    """A search was stopped before it found a network."""


class RuntimeUnavailable(HwnasError):
    """A runtime cannot run here."""


class PluginError(HwnasError):
    """An object that another package registers, or that a user's file defines, cannot be used."""


class RuntimeInputError(HwnasError):
    """A runtime was given an input of the wrong shape or type, or was used after it was closed."""


class DataError(HwnasError):
    """A dataset is empty, broken or not of the form asked for."""


class CheckpointError(HwnasError):
    """A supernet's files are not what is asked for."""


class TrainingDiverged(HwnasError):
    """A loss is NaN or infinite."""


class OutOfMemory(HwnasError):
    """A batch or a program does not fit into the memory."""


class ProcessLost(HwnasError):
    """One of a training's processes ended before the others."""


class GraphError(HwnasError):
    """A lowered graph is not one that its runtime takes."""


class ParityError(HwnasError):
    """The lowered network computes something else than the network it came from."""


class BundleError(HwnasError):
    """A bundle is incomplete or was changed since it was written."""


class OutputError(HwnasError):
    """A file or folder cannot be written."""
