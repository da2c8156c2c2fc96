"""Processes that run `hwnas`, forked from one that has imported it: an import takes 6 seconds of a core."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_WAIT_S = 0.01

# A process between the server and the run waits for it and writes how it ended: the server takes the next request.
_SERVER = """
import contextlib, json, os, signal, sys, traceback
import hwnas.cli.main, hwnas.pipeline, hwnas.search, hwnas.training.processes, hwnas.workflows.searching
import hwnas.workflows.studies, onnx, onnxruntime, onnxscript, openvino, optuna, sklearn.linear_model, torch._dynamo
import torch.onnx
for line in sys.stdin:
    request = json.loads(line)
    if os.fork() == 0:
        child = os.fork()
        if child == 0:
            os.setsid()
            # What started the tests, or a library, may ignore signals; a terminal starts hwnas with these.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["environment"])
            for number, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["hwnas", *request["words"]]
            code = 0
            try:
                exec(request["program"], {"__name__": "__main__"})
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
                code = 1
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)  # a forked interpreter that ends by itself waits for threads that it does not have
        print(child, flush=True)
        with open(request["ended"] + ".new", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
        os.rename(request["ended"] + ".new", request["ended"])
        os._exit(0)
    with contextlib.suppress(ChildProcessError):  # there is none
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            pass
"""


class Forked:
    """A run in a process and a session of its own, as `subprocess.Popen` has them; its output goes to files.

    Attributes:
        pid: of the process.
        stdout, stderr: files.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self._ended = pid, folder / "ended"
        self.stdout, self.stderr = folder / "stdout.txt", folder / "stderr.txt"

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return int(self._ended.read_text()) if self._ended.exists() else None

    def wait(self, timeout: float = 300.0) -> int:
        """The exit status at its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_WAIT_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait_for(self, line: str) -> bool:
        """Wait until the run has said a text on stderr; False if it ended before."""
        while self.poll() is None:
            if line in self.stderr.read_text():
                return True
            time.sleep(_WAIT_S)
        return line in self.stderr.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
        self.wait()


class Forks:
    """The process that forks runs; it starts with the first.

    Args:
        folder: for the output of the runs.
        program: Python that a run executes before `hwnas`.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self._folder, self._program, self._number = folder, program, 0
        self._server: subprocess.Popen[str] | None = None

    def start(
        self,
        words: Sequence[object],
        *,
        cwd: Path | None = None,
        program: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Forked:
        """Start a run of `hwnas` with some words.

        Args:
            words: the command's.
            cwd: its folder.
            program: Python to execute instead of ``hwnas``.
            environment: variables beside those of this process.
        """
        if self._server is None:
            # One thread, as in the tests' process: two on a busy machine wait for each other. One arena: in a run with
            # little memory, addresses that are reserved for threads count toward its limit.
            one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
            command = [sys.executable, "-c", _SERVER]
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=one)
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        request = {
            "words": [*map(str, words)],
            "cwd": str(cwd or folder),
            "program": self._program if program is None else program,
            "environment": {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(environment or {})},
            **{name: str(folder / file) for name, file in (("stdout", "stdout.txt"), ("stderr", "stderr.txt"))},
            "ended": str(folder / "ended"),
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        for name in ("stdout.txt", "stderr.txt"):
            (folder / name).touch()
        self._server.stdin.write(json.dumps(request) + "\n")
        return Forked(int(self._server.stdout.readline()), folder)

    def close(self) -> None:
        """End the process that forks."""
        if self._server:
            self._server.communicate()
