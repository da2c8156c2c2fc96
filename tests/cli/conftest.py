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


# Forks a process for each job on its stdin, which runs Python with hwnas imported already: that takes 3 seconds of a CPU.
SERVER = """
import json, os, sys
import hwnas.cli.main, hwnas.cli.search, hwnas.cli.study, hwnas.cli.train, hwnas.search.study.from_scratch, hwnas.supernet
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(job["folder"])
        os.environ["HWNAS_HOME"] = job["home"]
        nothing = os.open(os.devnull, os.O_RDONLY)
        out, err = (os.open(job[name], os.O_CREAT | os.O_WRONLY, 0o600) for name in ("out", "err"))
        os.dup2(nothing, 0), os.dup2(out, 1), os.dup2(err, 2)
        sys.argv = ["-c", *job["words"]]
        code = 1
        try:
            exec(job["program"], {"__name__": "__main__"})
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The process that `hwnas_alone` forks its processes from."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        # One thread, as in the tests' process: two on a busy machine wait for each other.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        yield process
        process.stdin.close()


@pytest.fixture
def hwnas_alone(tmp_path, server):
    """A function that runs `hwnas` in a process and a session of its own: signals reach nothing else.

    It takes Python that the process runs before, which may put other work in the place of hwnas's.
    """

    def run(before: str, *words: object) -> SimpleNamespace:
        program = f"{USUAL_SIGNALS}{before}\nfrom hwnas.cli.main import main\nmain()\n"
        out, err = tmp_path / "hwnas.out", tmp_path / "hwnas.err"
        for path in (out, err):
            path.unlink(missing_ok=True)
        job = {"folder": tmp_path, "home": tmp_path / "home", "out": out, "err": err}
        job = {name: str(path) for name, path in job.items()} | {"program": program, "words": [*map(str, words)]}
        server.stdin.write(json.dumps(job) + "\n")
        return SimpleNamespace(code=int(server.stdout.readline()), out=out.read_text(), err=err.read_text())

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
