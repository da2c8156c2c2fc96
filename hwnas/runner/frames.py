"""Messages over a pipe: a JSON object and bytes, each with its length in front."""

from __future__ import annotations

import json
import os
import struct
import time
from select import PIPE_BUF, select
from typing import Any

Message = dict[str, Any]

_HEADER = struct.Struct(">4sIQ")
_MAGIC = b"hwn1"
_MOST_JSON, _MOST_BYTES = 2**28, 2**33  # larger lengths are garbage


class BadFrame(Exception):
    """The other side sent something that is not a message."""


class TimedOut(Exception):
    """No message came in time."""


class Frames:
    """Sends and receives messages on two file descriptors.

    Args:
        inward: file descriptor to read from.
        outward: file descriptor to write to.
    """

    def __init__(self, inward: int, outward: int) -> None:
        self.inward, self.outward = inward, outward
        self._read = b""

    def send(self, message: Message, data: bytes = b"", timeout_s: float | None = None) -> None:
        """Send a message.

        Args:
            message: the message.
            data: its bytes.
            timeout_s: longest time in which the other side reads nothing, in seconds; unlimited if None.

        Raises:
            OSError: the pipe is closed.
            TimedOut: the other side does not read.
        """
        text = json.dumps(message).encode()
        write_all(self.outward, _HEADER.pack(_MAGIC, len(text), len(data)) + text, timeout_s)
        write_all(self.outward, data, timeout_s)

    def receive(self, timeout_s: float | None = None) -> tuple[Message, bytes] | None:
        """The next message and its bytes; None at the end of the pipe.

        Args:
            timeout_s: longest time without a single byte, in seconds; unlimited if None.

        Raises:
            BadFrame: it is not a message.
            TimedOut: nothing came.
        """
        header = self._exactly(_HEADER.size, timeout_s)
        if header is None:
            return None
        magic, of_text, of_data = _HEADER.unpack(header)
        if magic != _MAGIC or of_text > _MOST_JSON or of_data > _MOST_BYTES:
            raise BadFrame(header.decode("utf-8", errors="replace"))
        text, data = self._exactly(of_text, timeout_s), self._exactly(of_data, timeout_s)
        if text is None or data is None:
            return None
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadFrame(str(error)) from error
        if not isinstance(message, dict):
            raise BadFrame(f"{type(message).__name__} instead of an object")
        return message, data

    def skip_to(self, mark: bytes, most: int, timeout_s: float) -> tuple[bytes, bool]:
        """Read up to a mark: the bytes before it, and whether it came before the end of the pipe.

        Raises:
            BadFrame: there were `most` bytes without it.
            TimedOut: nothing came for `timeout_s` seconds.
        """
        while mark not in self._read:
            if len(self._read) > most:
                raise BadFrame(self._read[:most].decode("utf-8", errors="replace"))
            if not self._more(timeout_s):
                return self._read, False
        before, _, self._read = self._read.partition(mark)
        return before, True

    def _exactly(self, count: int, timeout_s: float | None) -> bytes | None:
        parts, missing = [self._read[:count]], count - len(self._read)
        self._read = self._read[count:]
        while missing > 0:
            if not self._more(timeout_s, missing):
                return None
            parts.append(self._read[:missing])
            missing -= len(parts[-1])
            self._read = self._read[len(parts[-1]) :]
        return b"".join(parts)

    def _more(self, timeout_s: float | None, most: int = 2**16) -> bool:
        if timeout_s is not None:
            until = time.monotonic() + timeout_s
            while not select([self.inward], [], [], max(0.0, min(1.0, until - time.monotonic())))[0]:
                if time.monotonic() >= until:
                    raise TimedOut
        got = os.read(self.inward, min(max(most, 1), 2**20))
        self._read += got
        return bool(got)


def write_all(descriptor: int, data: bytes, timeout_s: float | None = None) -> None:
    """Write all bytes.

    Args:
        descriptor: of a pipe.
        data: the bytes.
        timeout_s: longest time in which nothing can be written, in seconds; unlimited if None.

    Raises:
        OSError: the pipe is closed.
        TimedOut: the other side does not read.
    """
    view = memoryview(data)
    while view:
        if timeout_s is None:
            view = view[os.write(descriptor, view[: 2**20]) :]
        elif select([], [descriptor], [], timeout_s)[1]:
            view = view[os.write(descriptor, view[:PIPE_BUF]) :]  # more could block although select says ready
        else:
            raise TimedOut
