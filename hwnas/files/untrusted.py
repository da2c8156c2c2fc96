"""Reading untrusted input: JSON, file names and files, each checked against limits before use."""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from hwnas.errors import HwnasError

Location = tuple[str | int, ...]

DEPTH = 32
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME = 64
# Device names on Windows, reserved with any suffix.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


def parse_json(data: bytes, what: object, error: type[HwnasError]) -> object:
    """The value of a JSON document that every parser reads alike.

    Rejected are duplicate names in an object, NaN and Infinity (not JSON), numbers of thousands of digits, text that
    is not UTF-8, and nesting deeper than 32 levels.

    Args:
        data: the document; the caller has limited its size.
        what: what the document is, for the message.
        error: the class to raise.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        reason = "it is nested too deeply" if isinstance(problem, RecursionError) else problem
        raise error(f"{what} is malformed: the file: {reason}") from problem
    for depth, _ in enumerate(by_depth(value)):
        if depth >= DEPTH:
            raise error(f"{what} is malformed: the file: it is nested deeper than {DEPTH} levels")
    return value


def by_depth(document: object) -> Iterator[list[tuple[Location, object]]]:
    """The values of a document and their locations, level by level, from the top to the deepest."""
    level: list[tuple[Location, object]] = [((), document)]
    while level:
        yield level
        level = [
            ((*where, name), inner)
            for where, value in level
            if isinstance(value, dict | list)
            for name, inner in (value.items() if isinstance(value, dict) else enumerate(value))
        ]


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice in one object"
        )
    return found


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is not a JSON number")


def file_name_mistake(name: str) -> str | None:
    """Why a text is not a plain file name, without folders, on every system; None if it is one.

    Allowed are ASCII letters and digits, ``_``, ``-`` and single dots between them. This excludes folders, drives,
    ``..``, device names on Windows, and names that differ only in their Unicode form.
    """
    if len(name) > _LONGEST_NAME:
        return f"it has {len(name)} characters; at most {_LONGEST_NAME} are accepted"
    if not _FILE_NAME.fullmatch(name):
        return "a file of a bundle has a plain name of letters, digits, '_', '-' and single dots, without folders"
    if name.split(".", maxsplit=1)[0].casefold() in _DEVICES:
        return "Windows has a device of that name"
    return None


def open_regular(path: Path, error: type[HwnasError], *, limit_bytes: int) -> io.BufferedReader:
    """Open a regular file for reading; reject everything else.

    A symbolic link is not followed, and opening a FIFO does not block.

    Args:
        path: of the file.
        error: the class to raise.
        limit_bytes: the largest accepted size.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Checked before opening where no flag stops links from being followed, and after, because it may have changed.
        before = path.lstat()
        if not stat.S_ISREG(before.st_mode):
            raise error(f"{path} is {_kind(before.st_mode)}, not a file")
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from problem
    facts = os.fstat(file.fileno())
    mistake = None
    if not stat.S_ISREG(facts.st_mode):
        mistake = f"{path} is {_kind(facts.st_mode)}, not a file"
    elif facts.st_size > limit_bytes:
        mistake = f"{path} has {facts.st_size} bytes; at most {limit_bytes} are accepted"
    if mistake:
        file.close()
        raise error(mistake)
    return file


def require_file(path: Path, error: type[HwnasError]) -> None:
    """Reject anything but a regular file before it is read; links to files are followed.

    Reading some devices, or a FIFO without a writer, never ends.

    Args:
        path: of the file; a missing file passes, and reading it reports so.
        error: the class to raise.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        raise error(f"cannot read {path}: it is {_kind(mode)}, not a file")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")
