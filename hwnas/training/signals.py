"""Ending all processes of a training at a signal."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import time

_GRACE_S = 5.0  # for this process to end by itself after a signal, and for the others to end after it


def end_together(children: list[subprocess.Popen[bytes]]) -> None:
    """End this process and those that it started at Ctrl-C and SIGTERM, also while it waits for one of them.

    Python runs a signal handler only when the current call returns. A call that waits for another process (to connect,
    or for its gradients) does not return while that process is alive; so a thread reads the signals as well. It kills
    the children, which write no files, and the waiting call fails. Where this process waits for processes that it did
    not start, the thread ends this process.

    After a signal, this process ends without finalising the interpreter: threads of torch's process group are still in
    calls that failed with the children, and one of them may abort the process ("terminate called without an active
    exception", exit code 134; seen once in some hundred runs).

    Args:
        children: the processes that this one has started by the time of the signal.
    """
    signalled: list[int] = []
    ending = threading.Lock()
    reader, writer = os.pipe()  # open as long as this process lives
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        number = 0
        while number not in (signal.SIGINT, signal.SIGTERM):
            [number] = os.read(reader, 1)
        signalled.append(number)
        with ending:
            _end(children, 0.0)
        time.sleep(_GRACE_S)
        print("interrupted while waiting for other processes of this training", file=sys.stderr, flush=True)
        os._exit(128 + number)

    def leave() -> None:
        with ending:
            _end(children, _GRACE_S)
        if signalled:
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                try:
                    stream.flush()
                except BrokenPipeError:
                    pass  # its reader has ended
                except (OSError, ValueError) as error:
                    os.write(2, f"cannot write the rest of the output: {error}\n".encode())
            os._exit(128 + signalled[0])

    threading.Thread(target=watch, name="signals", daemon=True).start()
    atexit.register(leave)


def _end(children: list[subprocess.Popen[bytes]], wait_s: float) -> None:
    """Wait for processes, and kill those that still run then."""
    ending = list(children)
    children.clear()  # Fabric watches them by this list, and kills this process as soon as one of them has failed
    until = time.monotonic() + wait_s
    for child in ending:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
