"""Ctrl-C and SIGTERM end a run, also where the code under way swallows the interrupt."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

import pytest

import hwnas.supernet


class Dropped:
    """Its destructor is interrupted; Python lets no exception out of one."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def caught():
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def pressed():
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def train(hwnas_cli, monkeypatch, tmp_path):
    """A function that runs `hwnas train` with other work in place of the training, and says how far it came."""
    steps = []

    def run(work):
        def training(*_, progress, **__):
            for step in (1, 2, 3):
                progress("training", step, 3)
                steps.append(step)
                if step == 1:
                    work()

        monkeypatch.setattr(hwnas.supernet, "train", training)
        steps.clear()
        where = ("--data", "cluttered-digits", "--out", tmp_path / "net")
        return hwnas_cli("train", "--space", "mobilenetv3-tiny", *where), steps

    return run


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("work", [pressed, caught, Dropped], ids=["raised", "caught", "in a destructor"])
def test_the_next_progress_ends_the_run(train, monkeypatch, work, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    ran, steps = train(work)
    assert ran.code == 130
    assert steps == [1]
    assert "the same command goes on" in ran.err
    assert "Traceback" not in ran.err


def test_sigterm_ends_the_run_alike(train):
    def terminated():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)

    ran, steps = train(terminated)
    assert ran.code == 143
    assert steps == [1]
    assert "the same command goes on" in ran.err
    assert "Traceback" not in ran.err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_next_run_knows_nothing_of_it(train):
    assert train(caught)[0].code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ran, steps = train(lambda: None)
    assert ran.code == 0
    assert steps == [1, 2, 3]


def test_a_run_in_the_background_still_ignores_ctrl_c(train):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ran, steps = train(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ran.code == 0
    assert steps == [1, 2, 3]


def test_another_error_in_a_destructor_is_still_reported(train, monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reported.append(what.exc_type))

    class Broken:
        def __del__(self):
            raise ZeroDivisionError

    assert train(Broken)[0].code == 0
    assert reported == [ZeroDivisionError]
