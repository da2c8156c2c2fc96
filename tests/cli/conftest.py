"""The command line, as a user runs it."""

from __future__ import annotations

import json
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


# Forks a process for each request: the imports take as long as what the tests run.
SERVER = """
import json, os, sys
import hwnas.cli.main, hwnas.search, hwnas.training.processes, hwnas.workflows.searching, sklearn.linear_model
for line in sys.stdin:
    request = json.loads(line)
    if (child := os.fork()) == 0:
        os.setsid()
        os.chdir(request["folder"])
        os.environ["HWNAS_HOME"] = os.path.join(request["folder"], "home")
        for number, name in enumerate((os.devnull, "stdout.txt", "stderr.txt")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["hwnas", *request["words"]]
        exec(request["program"], {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def server():
    """A process that forks one for each line on its input."""
    # One thread, as in the tests' process: two on a busy machine wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def hwnas_alone(server, tmp_path):
    """A function that runs `hwnas` in a process and a session of its own: signals reach nothing else.

    It takes Python that the process runs before, which may put other work in the place of hwnas's.
    """

    def run(before: str, *words: object) -> SimpleNamespace:
        program = f"{USUAL_SIGNALS}{before}\nfrom hwnas.cli.main import main\nmain()\n"
        request = {"program": program, "words": [*map(str, words)], "folder": str(tmp_path)}
        server.stdin.write(json.dumps(request) + "\n")
        code = int(server.stdout.readline())
        out, err = ((tmp_path / name).read_text() for name in ("stdout.txt", "stderr.txt"))
        return SimpleNamespace(code=code, out=out, err=err)

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
