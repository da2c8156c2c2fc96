"""Ctrl-C and SIGTERM end a run, also where the code under way swallows the interrupt.

Signals are raised in a process of its own: one that came too late would end the process of the tests.
"""

from __future__ import annotations

import pytest

# Other work in place of the training. It says each step that it completes, and does something after the first.
TRAINING = """
import signal, sys
from contextlib import suppress
import hwnas.supernet
from hwnas.training.validation import History

class Dropped:  # its destructor is interrupted; Python lets no exception out of one
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

class Broken:
    def __del__(self):
        raise ZeroDivisionError

def pressed():
    signal.raise_signal(signal.SIGINT)

def caught(number=signal.SIGINT):
    with suppress(KeyboardInterrupt):
        signal.raise_signal(number)

def does(work):
    def training(*_, progress, **__):
        for step in (1, 2, 3):
            progress("training", step, 3)
            print("step", step, file=sys.__stdout__)  # rich takes sys.stdout where it draws a bar
            if step == 1:
                work()
        return History()
    hwnas.supernet.train = training

"""


@pytest.fixture
def train(hwnas_alone, tmp_path):
    """A function that runs `hwnas train` with other work in place of the training, and says how far it came."""

    def run(work):
        where = ("--data", "cluttered-digits", "--out", tmp_path / "net")
        ran = hwnas_alone(TRAINING + work, "train", "--space", "mobilenetv3-tiny", *where)
        return ran, [int(line.split()[1]) for line in ran.out.splitlines() if line.startswith("step ")]

    return run


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("work", ["pressed", "caught", "Dropped"], ids=["raised", "caught", "in a destructor"])
def test_the_next_progress_ends_the_run(train, work, terminal):
    ran, steps = train(f"does({work})\nsys.stderr.isatty = lambda: {terminal}")
    assert ran.code == 130
    assert steps == [1]
    assert "the same command resumes" in ran.err
    assert "Traceback" not in ran.err


# Runs the command once before, and says how it ended and what is done at each signal then.
ONCE_BEFORE = """
from hwnas.cli.main import main
with suppress(SystemExit):
    main()
print("then", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print("then", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
does(lambda: None)
"""


def test_sigterm_ends_the_run_alike(train):
    ran, steps = train("does(lambda: caught(signal.SIGTERM))")
    assert ran.code == 143
    assert steps == [1]
    assert "the same command resumes" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_the_next_run_knows_nothing_of_it(train, number):
    ran, steps = train(f"does(lambda: caught(signal.{number}))" + ONCE_BEFORE)
    assert ran.code == 0
    assert ran.out.count("then True") == 2
    assert ran.err.count("the same command resumes") == 1
    assert steps == [1, 1, 2, 3]


def test_a_run_in_the_background_still_ignores_ctrl_c(train):
    ran, steps = train("does(pressed)\nsignal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert ran.code == 0
    assert steps == [1, 2, 3]


def test_another_error_in_a_destructor_is_still_reported(train):
    report = "sys.unraisablehook = lambda what: print('reported', what.exc_type.__name__)"
    ran, _ = train(f"does(Broken)\n{report}")
    assert ran.code == 0
    assert ran.out.count("reported ZeroDivisionError") == 1
