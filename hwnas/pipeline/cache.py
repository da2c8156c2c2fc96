"""Stages that are not done twice: each is kept in a folder named by a hash of what it depends on."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwnas.errors import OutputError
from hwnas.targets import only_one, reason_of, write_whole

UNFINISHED = ".partial"
_INPUTS, _RESULT, _FILES = "inputs.json", "result.json", "files.json"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: what it depends on, where it is kept, and how it is done.

    Attributes:
        name: of the stage.
        inputs: what its result depends on, beside other stages; values that JSON can hold. A stage that belongs to one
            target names it here, under ``target``.
        needs: the stages that it builds on.
        place: folder of all stages.
        work: does it in the folder it is given, where an earlier try may have left something to go on from, and
            returns its result as JSON values.
    """

    name: str
    inputs: Mapping[str, object]
    needs: tuple[Stage, ...]
    place: Path
    work: Callable[[Path], Mapping[str, object]]

    @property
    def depends_on(self) -> dict[str, object]:
        """All that its result depends on; another stage stands in it with its key."""
        return {**self.inputs, **{stage.name: stage.key for stage in self.needs}}

    @cached_property
    def key(self) -> str:
        """Hash of its name and of what it depends on; it is known before any stage is done."""
        return hashlib.sha256(json.dumps([self.name, self.depends_on], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def target(self) -> str | None:
        """The target that it belongs to; None where all targets share it."""
        return None if (name := self.inputs.get("target")) is None else str(name)

    @property
    def folder(self) -> Path:
        """Its files, once it is finished."""
        return self.place / f"{self.name}-{self.key}"

    @property
    def unfinished(self) -> Path:
        """Its files until then."""
        return self.folder.with_name(self.folder.name + UNFINISHED)

    def is_whole(self) -> bool:
        """Whether it is finished, and its folder holds just the files it was finished with."""
        return _is_whole(self.folder)

    def result(self) -> dict[str, Any]:
        """What it returned when it was done."""
        found: dict[str, Any] = json.loads((self.folder / _RESULT).read_text(encoding="utf-8"))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """What became of a stage: its name and key, the seconds it took in this run, and whether it was reused."""

    name: str
    key: str
    seconds: float
    cached: bool


@dataclass(slots=True, kw_only=True)
class Stages:
    """The stages of a run in an output folder; one process at a time.

    A stage works in ``stages/<name>-<key>.partial``. When it is finished the folder loses its suffix, in one step:
    whatever stops a stage, what it wrote is never taken for finished. A stage that is run again finds the partial
    folder of the last try, and may go on from what lies there. What was built on an older result of a stage goes when
    the new one is put in its place.

    Attributes:
        out: the output folder.
        again: name of stages that are done though they are finished.

    Raises:
        OutputError: the folder cannot be written, or another process works in it.
    """

    out: Path
    again: str | None = None
    _seen: dict[str, str] = field(default_factory=dict)  # key -> name of what this run has done or reused
    _held: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file; the output is a folder, choose another name")
        self._held.enter_context(only_one(self.out / ".lock", str(self.out)))
        for left in [*self.out.glob(".hwnas-*.tmp"), *(self.out / "stages").rglob(".hwnas-*.tmp")]:
            left.unlink(missing_ok=True)  # of a file that a kill came into
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def run(self, stage: Stage) -> StageRun:
        """Do a stage, or reuse it.

        Raises:
            OutputError: its files cannot be written.
        """
        start = time.perf_counter()
        anew = stage.name == self.again and stage.key not in self._seen
        cached = not anew and stage.is_whole()
        if not cached:
            try:
                self._do(stage)
            except OSError as error:
                raise OutputError(
                    f"cannot write {error.filename or stage.unfinished}: {reason_of(error)}; "
                    "finished stages are kept, run the same command again to go on"
                ) from error
            except KeyboardInterrupt as error:
                finished = ", ".join(dict.fromkeys(self._seen.values())) or "none"
                more = f"; leave out --from {self.again} to go on" if self.again in self._seen.values() else ""
                error.add_note(f"stopped in stage {stage.name}; finished before it: {finished}{more}")
                raise
        self._seen[stage.key] = stage.name
        return StageRun(name=stage.name, key=stage.key, seconds=round(time.perf_counter() - start, 3), cached=cached)

    def _do(self, stage: Stage) -> None:
        place = stage.unfinished
        if not _is_whole(place):  # a kill may have come between the last file and the new name
            place.mkdir(parents=True, exist_ok=True)
            (place / _FILES).unlink(missing_ok=True)
            write_whole(place / _INPUTS, json.dumps(stage.depends_on, indent=2, sort_keys=True) + "\n")
            result = stage.work(place)
            write_whole(place / _RESULT, json.dumps(dict(result), indent=2) + "\n")
            write_whole(place / _FILES, json.dumps(_digests(place), indent=2, sort_keys=True) + "\n")
        for folder in _built_on(stage):
            _remove(folder)
        _remove(stage.folder)
        place.replace(stage.folder)


def _remove(path: Path) -> None:
    """Remove a stage, if it is there. Of one that somebody keeps elsewhere the link goes, not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def known_inputs(place: Path) -> dict[Path, dict[str, object]]:
    """Folder of a stage, finished or not -> what it depends on, of all stages in a folder."""
    found: dict[Path, dict[str, object]] = {}
    for path in sorted(place.glob(f"*/{_INPUTS}")):
        inputs = _read_json(path)  # None where somebody wrote into it: its stage is not whole and will be done again
        if isinstance(inputs, dict):
            found[path.parent] = inputs
    return found


def _built_on(stage: Stage) -> Iterator[Path]:
    """The folders of all that builds on a stage; what is built on most comes last."""
    known = known_inputs(stage.place)
    levels, keys = [list[Path]()], {stage.key}
    while keys:
        level = [folder for folder, inputs in known.items() if not keys.isdisjoint(_texts(inputs))]
        keys = {folder.name.removesuffix(UNFINISHED).rpartition("-")[2] for folder in level}
        levels.append(level)
    yield from dict.fromkeys(folder for level in reversed(levels) for folder in level)


def _texts(inputs: Mapping[str, object]) -> set[str]:
    return {value for value in inputs.values() if isinstance(value, str)}


def _digests(folder: Path) -> dict[str, str]:
    """Name below a folder -> sha256, of all files but the list of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _FILES)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds just the files that are listed in it."""
    listing = _read_json(folder / _FILES)
    return listing is not None and listing == _digests(folder)


def _read_json(path: Path) -> object:
    """The value of a JSON file; None if there is no such file, or it is no JSON."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return found
