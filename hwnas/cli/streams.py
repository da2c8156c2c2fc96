"""Standard output and error as they are: of any encoding, closed, or a pipe whose reader has gone."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TextIO

from hwnas.errors import OutputError


def take_any_text() -> None:
    """Let every character be printed: what the encoding lacks (cp1252, Latin-1, ASCII) is shown as an escape.

    A verb that has worked for an hour must not end at a Greek letter. A stream that was closed before the start takes
    everything and shows nothing; the null device also keeps its number from the next file that is opened.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            null = Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, null)
        elif isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="backslashreplace")


def takes_unicode() -> bool:
    """Whether standard output is in an encoding that has every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def flush() -> None:
    """Write what is still held back; a reader that has gone (`hwnas tables list | head -1`) had what it wanted.

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
                raise OutputError(f"cannot write the output: {error.strerror}; write it to another place") from error


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds to the null device: Python would complain of it once more when it ends."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # no file, such as what a test reads
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
