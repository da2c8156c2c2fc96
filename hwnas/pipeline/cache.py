"""Stages that are not done twice: each is kept in a folder named by a hash of what it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwnas.errors import OutputError
from hwnas.targets import only_one, write_whole

_FILES = "files.json"


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
    _held: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file; the output is a folder, choose another name")
        self._held.enter_context(only_one(self.out / ".lock", str(self.out)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

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
        cached = _is_whole(folder)
        if not cached:
            partial = folder.with_name(folder.name + ".partial")
            try:
                if folder.exists():
                    shutil.rmtree(folder)  # a file of it was changed or deleted: it is done again
                partial.mkdir(parents=True, exist_ok=True)
                result = work(partial)
                write_whole(partial / "inputs.json", json.dumps(dict(inputs), indent=2, sort_keys=True) + "\n")
                write_whole(partial / "result.json", json.dumps(dict(result), indent=2) + "\n")
                write_whole(partial / _FILES, json.dumps(_digests(partial), indent=2, sort_keys=True) + "\n")
                partial.replace(folder)
            except OSError as error:
                raise OutputError(
                    f"cannot write {error.filename or partial}: {error.strerror}; finished stages are kept, "
                    "run the same command again to go on"
                ) from error
        self.runs.append(StageRun(name=name, seconds=round(time.perf_counter() - start, 3), cached=cached))
        return Done(key, folder)


def _digests(folder: Path) -> dict[str, str]:
    """Name below a folder -> sha256, of all files but the list of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _FILES)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(folder: Path) -> bool:
    """Whether a stage's folder holds just the files it was finished with."""
    listing = folder / _FILES
    if not listing.is_file():
        return False
    try:
        return bool(json.loads(listing.read_text()) == _digests(folder))
    except ValueError:  # somebody wrote into the list itself
        return False
