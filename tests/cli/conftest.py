"""The command line, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

# What started the tests, or a library, may ignore signals or take them; a terminal starts hwnas with these.
USUAL_SIGNALS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
"""


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
    """How well the ensemble predicts is asked elsewhere."""
    monkeypatch.setattr("hwnas.accuracy.ensemble._STEPS", 40)


@pytest.fixture
def hwnas_alone(tmp_path):
    """A function that runs `hwnas` in a process and a session of its own: signals reach nothing else.

    It takes Python that the process runs before, which may put other work in the place of hwnas's.
    """

    def run(before: str, *words: object) -> SimpleNamespace:
        program = f"{USUAL_SIGNALS}{before}\nfrom hwnas.cli.main import main\nmain()\n"
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, words)],
            cwd=tmp_path,
            # One thread, as in the tests' process: two on a busy machine wait for each other.
            env={**os.environ, "HWNAS_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def refused(hwnas_cli):
    """A function that runs `hwnas`, checks that it ends as a user error, and returns the message."""

    def run(*words: object) -> str:
        ran = hwnas_cli(*words)
        assert ran.code == 2, ran
        assert ran.err.count("error: ") == 1
        assert "Traceback" not in ran.err
        return ran.err

    return run
