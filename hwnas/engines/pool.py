"""Workers in processes of this host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from hwnas.engines.worker import read_message, write_message
from hwnas.engines.workers import WorkerLost

_ENDING_S = 5.0  # from the end of a process's output to its own


class LocalWorker:
    """A process of this host that answers requests.

    It is not a fork, which would lack torch's threads, and it does not import the main module of this process, which
    may be a script that does its work when it is imported.

    Args:
        environment: variables besides those of this process.

    Raises:
        WorkerLost: it ended before it was ready.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = [*map(str, sys.path)]
        program = f"import sys; sys.path[:] = {path!r}; from hwnas.engines.worker import main; main()"
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program], stdin=pipe, stdout=pipe, env={**os.environ, **environment}
            )
        except OSError as error:
            raise WorkerLost(str(error)) from error
        self._receive()

    def call(self, message: bytes) -> bytes:
        """The reply to a request.

        Raises:
            WorkerLost: the process ended.
        """
        assert self._process.stdin
        try:
            write_message(self._process.stdin, message)
        except (OSError, ValueError) as error:  # ValueError: another thread ended the process
            raise self._lost() from error
        return self._receive()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # part of a request that nobody reads
                if stream:
                    stream.close()

    def _receive(self) -> bytes:
        assert self._process.stdout
        try:
            message = read_message(self._process.stdout)
        except (OSError, ValueError) as error:
            raise self._lost() from error
        if message is None:
            raise self._lost()
        return message

    def _lost(self) -> WorkerLost:
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            code = None
        self.end()
        if code == -signal.SIGKILL:
            return WorkerLost("its process was killed (by the system, if the memory is full)")
        return WorkerLost(f"its process ended with exit code {code}")
