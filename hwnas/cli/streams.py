"""Robust standard output and error: any encoding, closed streams, and closed pipes."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TextIO

from hwnas.errors import OutputError


def take_any_text() -> None:
    """Make every character printable: those missing in the encoding (cp1252, Latin-1, ASCII) are escaped.

    A verb must not fail at a Greek letter after an hour of work. A stream that was closed before the start is replaced
    by the null device, which also reserves its file descriptor.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            null = Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115 - never closed
            setattr(sys, name, null)
        elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def takes_unicode() -> bool:
    """Whether the encoding of standard output has every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def flush() -> None:
    """Flush the output; a closed pipe (`hwnas tables list | head -1`) is not an error.

    Raises:
        OutputError: standard output cannot be written, e.g. to a file on a full disk.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _discard(stream)
        except OSError as error:
            _discard(stream)
            if stream is sys.stdout:
                raise OutputError(f"cannot write the output: {error.strerror}; redirect it elsewhere") from error


def _discard(stream: TextIO) -> None:
    """Redirect a stream's buffer to the null device: Python would report the error again at exit."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # not a file, such as a captured stream in a test
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
