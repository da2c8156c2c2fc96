"""Requests to workers and their replies, as bytes."""

from __future__ import annotations

import pickle
import platform
import traceback
from collections.abc import Callable
from typing import Any

from hwnas.errors import HwnasError, InvalidValue


def request(source: Callable[[], Any], run: Callable[[Any, Any], Any], item: object) -> bytes:
    """The request to run a function on an item (`hwnas.engines.Engine.map`).

    Raises:
        InvalidValue: they cannot be pickled.
    """
    try:
        return pickle.dumps((pickle.dumps(source), run, item))
    except Exception as error:  # what an object raises while it is pickled is its own affair
        raise InvalidValue(
            f"this work cannot be sent to other processes: {error}. Use names and paths instead of objects, or the "
            "engine serial"
        ) from error


def result(reply: bytes) -> Any:  # noqa: ANN401 - whatever the work returns
    """The result in a reply; the error of the work is raised."""
    error, found = pickle.loads(reply)
    if error is not None:
        raise error
    return found


class Server:
    """Answers requests in a worker, and keeps what was opened for the last one."""

    def __init__(self) -> None:
        self._source, self._opened = b"", None

    def answer(self, message: bytes) -> bytes:
        """The reply to a request: its result, or the error that it raised."""
        try:
            source, run, item = pickle.loads(message)
            if source != self._source:
                self._source, self._opened = b"", None  # freed before another one is opened
                self._opened = pickle.loads(source)()
                self._source = source
            return pickle.dumps((None, run(self._opened, item)))
        except Exception as error:
            return _failure(error)


def _failure(error: Exception) -> bytes:
    if not isinstance(error, HwnasError):
        error.add_note(f"in a worker on {platform.node()}:\n{traceback.format_exc()}")
    try:
        reply = pickle.dumps((error, None))
        pickle.loads(reply)
    except Exception:  # some exceptions of libraries can be pickled, but not made again
        same = RuntimeError(f"{type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            same.add_note(note)
        reply = pickle.dumps((same, None))
    return reply
