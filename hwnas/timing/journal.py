"""The record of a measurement that is under way, so that a killed one can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from hwnas.errors import OutputError

Visit = tuple[int, str]


class Journal:
    """Samples, appended visit by visit: a kill at any moment loses at most the visit in hand.

    The first line holds what the measurement is of. A journal of something else (other ops, another recipe, another
    protocol, another version) is not continued but begun anew.

    Args:
        path: a file of JSON lines.
        subject: what is measured, and how.
    """

    def __init__(self, path: Path, subject: Mapping[str, object]) -> None:
        self.path = path
        header = json.dumps({"subject": subject}, sort_keys=True)
        self.visits: dict[Visit, list[float]] = {}
        try:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            whole = [line for line in lines if line.endswith(b"\n")]  # a line without its end was cut off by a kill
            if whole and whole[0].decode().rstrip("\n") == header:
                for line in whole[1:]:
                    visit = json.loads(line)
                    self.visits[visit["pass"], visit["program"]] = visit["ms"]
                if len(whole) < len(lines):
                    with path.open("r+b") as file:
                        file.truncate(sum(map(len, whole)))
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(header + "\n")
            self._file = path.open("a")
        except OSError as error:
            raise OutputError(f"cannot write the journal {path}: {error.strerror}") from error

    def record(self, visit: Visit, samples_ms: list[float]) -> None:
        """Append the samples of a visit.

        Raises:
            OutputError: the disk is full, or the file cannot be written.
        """
        self.visits[visit] = samples_ms
        line = json.dumps({"pass": visit[0], "program": visit[1], "ms": samples_ms})
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write the journal {self.path}: {error.strerror}; what is measured so far is kept, "
                "run the same command again to go on"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
