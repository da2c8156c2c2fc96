"""The command line, as a user runs it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
    """How well the ensemble predicts is asked elsewhere."""
    monkeypatch.setattr("hwnas.accuracy.ensemble._STEPS", 40)


@pytest.fixture
def hwnas_alone(forks, tmp_path):
    """A function that runs `hwnas` in a process and a session of its own: signals reach nothing else.

    It takes Python that the process runs before, which may put other work in the place of hwnas's.
    """

    def run(before: str, *words: object) -> SimpleNamespace:
        program = f"{before}\nfrom hwnas.cli.main import main\nmain()\n"
        home = {"HWNAS_HOME": str(tmp_path / "home")}
        started = forks.start(words, cwd=tmp_path, program=program, environment=home)
        return SimpleNamespace(code=started.wait(), out=started.stdout.read_text(), err=started.stderr.read_text())

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
