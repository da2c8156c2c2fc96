"""Every error that hwnas raises on purpose.

::

    HwnasError                    a user can act on it: one message, no traceback, exit code 2 (TooNoisy: 1)
    ├── SpecError                 a TOML or JSON file is invalid
    ├── UnknownName               no device, recipe, space, variable ... has that name
    ├── InvalidValue              an argument is invalid
    ├── TableError                a latency table cannot be used
    │   ├── TableCorrupt          its rows do not match its manifest, or are not latencies
    │   ├── TableMismatch         it was made with another recipe or for another target
    │   └── MissingOp             it lacks an op that the space needs
    ├── TooNoisy                  timings vary too much to be trusted
    ├── InfeasibleBudget          no network of the space is within the budgets
    ├── SearchStopped             a search was stopped before it found a network
    ├── RuntimeUnavailable        a runtime cannot run here
    ├── PluginError               an object of another package, or of a user's file, cannot be used
    ├── RuntimeInputError         a runtime was given an input of the wrong shape or type, or was closed
    ├── DataError                 a dataset is empty, broken or in another format than expected
    ├── CheckpointError           a supernet's files are missing, broken or of another supernet
    ├── TrainingDiverged          a loss is NaN or infinite
    ├── OutOfMemory               a batch or a program does not fit into the memory
    ├── ProcessLost               one of a training's processes ended before the others
    ├── EngineError               workers of an engine cannot start, or work on an item ends them
    ├── MachineError              a machine cannot be reached, or is not the one that a target names
    ├── ProgramCrashed            a program ended the process that ran it
    ├── GraphError                a lowered graph is not accepted by its runtime
    ├── ParityError               the outputs of the lowered network differ from those of the original
    ├── BundleError               a bundle is incomplete or was changed
    └── OutputError               a file or folder cannot be written
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar


def some(names: Sequence[str], most: int = 20) -> str:
    """Names for a message, joined by commas: if there are more than `most`, the first ones and how many are left."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


class HwnasError(Exception):
    """An error that the user can act on. Messages say what was wrong, the value, what is valid, and what helps.

    Attributes:
        exit_code: of the command line.
    """

    exit_code: ClassVar[int] = 2

    def __reduce__(self) -> tuple[Callable[..., HwnasError], tuple[object, ...]]:
        """Pickle it without its `__init__`, whose arguments are not those of Exception: workers send their errors."""
        return _again, (type(self), self.args, dict(self.__dict__))


def _again(kind: type[HwnasError], args: tuple[object, ...], state: dict[str, object]) -> HwnasError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class SpecError(HwnasError):
    """A TOML or JSON file is invalid."""


class UnknownName(HwnasError):
    """No device, recipe, space, variable or dataset has that name."""

    def __init__(self, what: str, name: object, choices: Iterable[object], hint: str = "") -> None:
        known = [str(choice) for choice in choices]
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        suggestion = f" Did you mean {near[0]!r}?" if near else ""
        listing = some(known, most=50)  # a catalog as a whole, but not the names of 1,000 classes
        super().__init__(f"unknown {what} {str(name)!r}.{suggestion} Known: {listing}." + (f" {hint}" if hint else ""))
        self.choices = known


class InvalidValue(HwnasError):
    """An argument is invalid."""


class TableError(HwnasError):
    """A latency table cannot be used."""


class TableCorrupt(TableError):
    """The rows of a table do not match its manifest, or are not latencies."""


class TableMismatch(TableError):
    """A table was made with another recipe or for another target."""


class MissingOp(TableError):
    """A table lacks an op that the space needs."""


class TooNoisy(HwnasError):
    """Timings vary too much to be trusted. The same command may succeed on a quiet machine."""

    exit_code = 1


class InfeasibleBudget(HwnasError):
    """No network of the space is within the budgets.

    Attributes:
        objectives: names of the objectives whose budgets cannot be met: one alone, or several together.
        lowest: the minimum of the last of them within the budgets of the others; NaN if it was not
            computed.
        arch: the network with that minimum, if a single objective cannot be met; else None.
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
    """A dataset is empty, broken or in another format than expected."""


class CheckpointError(HwnasError):
    """A supernet's files are missing, broken or of another supernet."""


class TrainingDiverged(HwnasError):
    """A loss is NaN or infinite."""


class OutOfMemory(HwnasError):
    """A batch or a program does not fit into the memory."""


class ProcessLost(HwnasError):
    """One of a training's processes ended before the others."""


class EngineError(HwnasError):
    """Workers of an engine cannot start, or the work on an item ends them again and again."""


class MachineError(HwnasError):
    """A machine cannot be reached, lacks something, is in use, or is not the one that a target names."""


class ProgramCrashed(HwnasError):
    """A program ended the process that ran it, e.g. because its runtime aborted.

    Attributes:
        program: name of the program.
    """

    def __init__(self, message: str, program: str) -> None:
        super().__init__(message)
        self.program = program


class GraphError(HwnasError):
    """A lowered graph is not accepted by its runtime."""


class ModelError(HwnasError):
    """A model of the user cannot be read, or contains what hwnas does not take."""


class ParityError(HwnasError):
    """The outputs of the lowered network differ from those of the network it came from."""


class BundleError(HwnasError):
    """A bundle is incomplete or was changed since it was written."""


class OutputError(HwnasError):
    """A file or folder cannot be written."""
