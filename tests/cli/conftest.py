"""The command line, as a user runs it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_fits(monkeypatch):
    """How well the ensemble predicts is asked elsewhere."""
    monkeypatch.setattr("hwnas.accuracy.ensemble._STEPS", 40)


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
