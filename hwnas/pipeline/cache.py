"""Stages that are not done twice: each is kept in a folder named by a hash of what it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock

from hwnas.errors import OutputError
from hwnas.targets import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """What became of a stage: its name, the seconds it took in this run, and whether it was reused."""

    name: str
    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True)
class Done:
    """A finished stage.

    Attributes:
        key: hash of all it depends on; later stages name it among what they depend on.
        folder: its files.
    """

    key: str
    folder: Path

    def result(self) -> dict[str, Any]:
        """What the stage returned."""
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return found


@dataclass(slots=True)
class Stages:
    """The stages of a run in an output folder; one process at a time.

    A stage works in ``stages/<name>-<key>.partial``. When it is finished the folder loses its suffix, in one step:
    whatever stops a stage, what it wrote is never taken for finished. A stage that is run again finds the partial
    folder of the last try, and may go on from what lies there.

    Raises:
        OutputError: the folder cannot be written, or another process works in it.
    """

    out: Path
    runs: list[StageRun] = field(default_factory=list)
    _lock: filelock.FileLock | None = None

    def __enter__(self) -> Self:
        try:
            if self.out.exists() and not self.out.is_dir():
                raise OutputError(f"{self.out} is a file; the output is a folder, choose another name")
            self.out.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.out / ".lock")
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise OutputError(
                f"another hwnas is working in {self.out}; wait for it, or choose another folder"
            ) from error
        except OSError as error:
            raise OutputError(f"cannot write to {self.out}: {error.strerror}; choose another folder") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.release()

    def run(self, name: str, inputs: Mapping[str, object], work: Callable[[Path], Mapping[str, object]]) -> Done:
        """Do a stage, or reuse it.

        Args:
            name: of the stage.
            inputs: all that its result depends on; values that JSON can hold.
            work: does it in the folder it is given, and returns its result.

        Raises:
            OutputError: its files cannot be written.
        """
        start = time.perf_counter()
        key = hashlib.sha256(json.dumps(dict(inputs), sort_keys=True).encode()).hexdigest()[:16]
        folder = self.out / "stages" / f"{name}-{key}"
        cached = (folder / "result.json").is_file()
        if not cached:
            partial = folder.with_name(folder.name + ".partial")
            try:
                partial.mkdir(parents=True, exist_ok=True)
                result = work(partial)
                write_whole(partial / "inputs.json", json.dumps(dict(inputs), indent=2, sort_keys=True) + "\n")
                write_whole(partial / "result.json", json.dumps(dict(result), indent=2) + "\n")
                if folder.exists():
                    shutil.rmtree(folder)  # its result was deleted by hand
                partial.replace(folder)
            except OSError as error:
                raise OutputError(
                    f"cannot write {error.filename or partial}: {error.strerror}; finished stages are kept, "
                    "run the same command again to go on"
                ) from error
        self.runs.append(StageRun(name=name, seconds=round(time.perf_counter() - start, 3), cached=cached))
        return Done(key, folder)
