"""Cached stages: each is stored in a folder that is named by a hash of its inputs."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwnas.errors import OutputError
from hwnas.files import only_one, reason_of, write_whole
from hwnas.workflows.inputs import STAGE_INPUTS

UNFINISHED = ".partial"
_RESULT, _FILES, _SECONDS = "result.json", "files.json", "seconds.json"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage: its inputs, its folder, and its work.

    Attributes:
        name: of the stage.
        inputs: inputs of its result besides other stages; JSON values. A stage of a single target has the target's name
            under ``target``.
        needs: the stages that it depends on.
        place: folder of all stages.
        work: executes the stage in a folder, where it may resume from files of an earlier attempt, and returns its
            result as JSON values.
        unsettled: a function of its result: why it cannot be trusted, e.g. because the machine was too noisy; None if
            it can. An unsettled stage is used by the run that executed it, and executed again by the next run.
    """

    name: str
    inputs: Mapping[str, object]
    needs: tuple[Stage, ...]
    place: Path
    work: Callable[[Path], Mapping[str, object]]
    unsettled: Callable[[Mapping[str, Any]], str | None] = lambda result: None

    @property
    def depends_on(self) -> dict[str, object]:
        """All inputs of its result; other stages are represented by their keys."""
        return {**self.inputs, **{stage.name: stage.key for stage in self.needs}}

    @cached_property
    def key(self) -> str:
        """Hash of its name and inputs, known before any stage is executed."""
        return hashlib.sha256(json.dumps([self.name, self.depends_on], sort_keys=True).encode()).hexdigest()[:16]

    @property
    def target(self) -> str | None:
        """The target that it belongs to; None if all targets share it."""
        return None if (name := self.inputs.get("target")) is None else str(name)

    @property
    def folder(self) -> Path:
        """Folder of its files when it is finished."""
        return self.place / f"{self.name}-{self.key}"

    @property
    def unfinished(self) -> Path:
        """Folder of its files before that."""
        return self.folder.with_name(self.folder.name + UNFINISHED)

    def is_whole(self) -> bool:
        """Whether it is finished, and its files exist and are unchanged.

        Additional files are ignored: browsing a run must not invalidate its training.
        """
        return _is_whole(self.folder)

    def why_unsettled(self) -> str | None:
        """Why a finished stage is executed again; None if it is reused."""
        return self.unsettled(self.result())

    def result(self) -> dict[str, Any]:
        """Its stored result."""
        found: dict[str, Any] = json.loads((self.folder / _RESULT).read_text(encoding="utf-8"))
        return found

    def took_s(self) -> float | None:
        """Seconds of its execution, including interrupted attempts; None if an older hwnas executed it."""
        return _seconds(self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """The outcome of a stage in a run.

    Attributes:
        name, key: of the stage.
        seconds: its time in this run, for its execution or for checking its files.
        cached: whether it was reused.
        took_s: seconds of its execution, in this run or an earlier one; None if an older hwnas executed it.
    """

    name: str
    key: str
    seconds: float
    cached: bool
    took_s: float | None


@dataclass(slots=True, kw_only=True)
class Stages:
    """The stages of a run in an output folder; only one process at a time may use it.

    A stage works in ``stages/<name>-<key>.partial``. When it is finished the folder is renamed without the suffix, so
    an interrupted stage is never taken for a finished one. A repeated stage finds the partial folder of the last
    attempt and may resume from it. When a stage gets a new result, all stages that depend on the old one are deleted.

    Attributes:
        out: the output folder.
        again: name of stages to execute again.

    Raises:
        OutputError: the folder cannot be written, or another process works in it.
    """

    out: Path
    again: str | None = None
    _seen: dict[str, str] = field(default_factory=dict)  # key -> name of stages that this run has executed or reused
    _held: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out} is a file, but the output is a folder; choose another name")
        self._held.enter_context(only_one(self.out / ".lock", str(self.out)))
        for left in [*self.out.glob(".hwnas-*.tmp"), *(self.out / "stages").rglob(".hwnas-*.tmp")]:
            left.unlink(missing_ok=True)  # left by a kill during a write
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def run(self, stage: Stage) -> StageRun:
        """Execute a stage, or reuse it.

        Raises:
            OutputError: its files cannot be written.
        """
        start = time.perf_counter()
        anew = stage.name == self.again and stage.key not in self._seen
        cached = not anew and stage.is_whole() and (stage.key in self._seen or stage.why_unsettled() is None)
        if not cached:
            try:
                self._do(stage)
            except OSError as error:
                raise OutputError(
                    f"cannot write {error.filename or stage.unfinished}: {reason_of(error)}; "
                    "finished stages are kept, run the same command again to resume"
                ) from error
            except KeyboardInterrupt as error:
                finished = ", ".join(dict.fromkeys(self._seen.values())) or "none"
                more = f"; omit --from {self.again} to resume" if self.again in self._seen.values() else ""
                error.add_note(f"stopped in stage {stage.name}; finished before it: {finished}{more}")
                raise
        self._seen[stage.key] = stage.name
        return StageRun(
            name=stage.name,
            key=stage.key,
            seconds=round(time.perf_counter() - start, 3),
            cached=cached,
            took_s=stage.took_s(),
        )

    def _do(self, stage: Stage) -> None:
        place = stage.unfinished
        if not _is_whole(place):  # it may have been killed between the last file and the renaming
            place.mkdir(parents=True, exist_ok=True)
            (place / _FILES).unlink(missing_ok=True)
            write_whole(place / STAGE_INPUTS, json.dumps(stage.depends_on, indent=2, sort_keys=True) + "\n")
            before, start = _seconds(place) or 0.0, time.perf_counter()
            try:
                result = stage.work(place)
            finally:  # also for an interrupted attempt; a kill -9 loses them
                with suppress(OutputError):  # the interruption may be a full disk
                    seconds = round(before + time.perf_counter() - start, 3)
                    write_whole(place / _SECONDS, json.dumps({"seconds": seconds}) + "\n")
            write_whole(place / _RESULT, json.dumps(dict(result), indent=2) + "\n")
            write_whole(place / _FILES, json.dumps(_digests(place), indent=2, sort_keys=True) + "\n")
        for folder in _built_on(stage):
            _remove(folder)
        _remove(stage.folder)
        place.replace(stage.folder)


def _remove(path: Path) -> None:
    """Remove a stage, if it exists. If it is a symbolic link, only the link is removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def known_inputs(place: Path) -> dict[Path, dict[str, object]]:
    """Folder of a stage, finished or not -> its inputs, for all stages in a folder."""
    found: dict[Path, dict[str, object]] = {}
    for path in sorted(place.glob(f"*/{STAGE_INPUTS}")):
        inputs = _read_json(path)  # None if it was damaged: its stage is then invalid and will be executed again
        if isinstance(inputs, dict):
            found[path.parent] = inputs
    return found


def _built_on(stage: Stage) -> Iterator[Path]:
    """The folders of all stages that depend on a stage, in reverse order of dependency."""
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
    """Name below a folder -> sha256, of all files of a result, without the list of files and the time."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: file_digest(folder / name) for name in names if name not in (_FILES, _SECONDS)}


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(folder: Path) -> bool:
    """Whether the files that are listed in a folder exist and are unchanged."""
    listing = _read_json(folder / _FILES)
    if not isinstance(listing, dict) or not {STAGE_INPUTS, _RESULT} <= set(listing):
        return False
    return all((folder / name).is_file() and file_digest(folder / name) == digest for name, digest in listing.items())


def last_seconds(stage: Stage) -> tuple[float, str | None] | None:
    """Seconds of the most recent finished stage of the same name, and its target; None if there is none.

    A stage for the same target takes precedence over one for another target.
    """
    found: list[tuple[bool, int, float, str | None]] = []
    for folder, inputs in known_inputs(stage.place).items():
        if folder.name.endswith(UNFINISHED) or folder.name.rpartition("-")[0] != stage.name:
            continue
        if (seconds := _seconds(folder)) is not None:
            target = None if inputs.get("target") is None else str(inputs["target"])
            found.append((target == stage.target, (folder / _SECONDS).stat().st_mtime_ns, seconds, target))
    return max(found, key=lambda one: one[:2])[2:] if found else None


def _seconds(folder: Path) -> float | None:
    """The seconds of a folder's stage so far; None if unknown."""
    found = _read_json(folder / _SECONDS)
    seconds = found.get("seconds") if isinstance(found, dict) else None
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < math.inf else None


def _read_json(path: Path) -> object:
    """The value of a JSON file; None if the file does not exist or is not JSON."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return found
