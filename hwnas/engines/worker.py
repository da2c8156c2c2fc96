"""The process of a worker of the local pool: requests on stdin, replies on stdout, each after its length.

It starts with the variables of `hwnas.engines.workers.environment`, before torch is loaded.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import struct
import sys
import threading
from typing import IO

from hwnas.engines.requests import Server

_LENGTH = struct.Struct("<Q")


def write_message(stream: IO[bytes], message: bytes) -> None:
    """Write a message.

    Raises:
        OSError: the other process has ended.
    """
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def read_message(stream: IO[bytes]) -> bytes | None:
    """Read a message; None if the other process has ended."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    [length] = _LENGTH.unpack(header)
    message = stream.read(length)
    return message if len(message) == length else None


def main() -> None:
    """Answer requests until the process that sends them ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    logging.basicConfig(level=logging.ERROR)  # the process that sends requests has opened the same files, and warned
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the work prints must not get between the replies
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        while (message := read_message(sys.stdin.buffer)) is not None:
            requests.put(message)
        os._exit(0)  # at once, also in the midst of work: nobody waits for it

    threading.Thread(target=read, name="requests", daemon=True).start()
    server = Server()
    write_message(replies, b"")  # ready
    while True:
        write_message(replies, server.answer(requests.get()))
