"""The record of long work in progress, from which a killed run resumes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hwnas.errors import OutputError
from hwnas.files.atomic import reason_of, write_whole


class Journal:
    """Results by key, appended one by one: a kill at any moment loses at most the current one.

    The first line describes the work. A journal of other work (other ops, recipe, protocol or version) is discarded.

    Args:
        path: a file of JSON lines.
        subject: a description of the work; any JSON value.

    Attributes:
        entries: key -> result, as JSON returns it.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, subject: Mapping[str, object]) -> None:
        self.path = path
        self.entries: dict[str, Any] = {}
        header = json.dumps({"subject": subject}, sort_keys=True).encode() + b"\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            if content.startswith(header):
                whole = header
                for line in content[len(header) :].splitlines(keepends=True):
                    try:
                        entry = json.loads(line if line.endswith(b"\n") else b"")
                        self.entries[str(entry["key"])] = entry["value"]
                    except (ValueError, KeyError, TypeError, RecursionError):
                        break  # work after a truncated or damaged line is repeated
                    whole += line
            else:
                whole = header
            if content[: len(whole)] == whole:
                os.truncate(path, len(whole))
            else:
                write_whole(path, whole)
            self._file = path.open("ab")
        except OSError as error:
            raise OutputError(f"cannot write the journal {path}: {reason_of(error)}") from error

    def record(self, key: str, value: object) -> None:
        """Append a result.

        Raises:
            OutputError: the disk is full, or the file cannot be written.
        """
        self.entries[key] = value
        try:
            self._file.write(json.dumps({"key": key, "value": value}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"cannot write the journal {self.path}: {reason_of(error)}; what was recorded so far is kept, "
                "run the same command again to resume"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Every record was flushed or its failure raised; closing would retry the lost bytes and hide that error.
        with contextlib.suppress(OSError):
            self._file.close()
