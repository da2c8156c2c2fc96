"""A training of several processes ends at a signal, whatever threads of its process group would do at the end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import atexit, os, signal, subprocess, sys, time
from hwnas.training.signals import end_together

atexit.register(os.abort)  # as a thread that is still in a call when the interpreter is finalised
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
end_together([child])
for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have started the tests with SIGINT ignored
    signal.signal(number, signal.default_int_handler)
try:
    print("ready", flush=True)  # the signal may come before it returns
    time.sleep(600)
except KeyboardInterrupt:
    print("ended", child.wait(10))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_without_finalisation(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out == f"ended {-signal.SIGKILL}\n"
    assert process.returncode == 128 + number
