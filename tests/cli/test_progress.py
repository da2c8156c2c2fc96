"""What the progress of long work shows: how much of what is done, and how it goes."""

from __future__ import annotations

import sys

import pytest

from hwnas.shown_progress import shown_progress


def test_lines_say_unit_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress() as progress:
        progress("training", 64, 6400, unit="images", note="loss 2.303")
        progress("lowering 3 ops", 0, 1)
    assert capsys.readouterr().err.splitlines() == ["training: 64/6400 images, loss 2.303", "lowering 3 ops: 0/1"]


def test_a_terminal_shows_unit_and_note(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with shown_progress() as progress:
        for done in (1, 2, 3):
            progress("training", done, 3, unit="images", note=f"loss {done} [of 3]")
        progress("lowering 3 ops", 1, 1)
    shown = capsys.readouterr().err
    assert "images/s" in shown
    assert "loss 3 [of 3]" in shown


def test_a_training_says_loss_and_images(hwnas_cli, tmp_path):
    words = ("--data", "cluttered-digits", "--steps", 2, "--batch-size", 2, "--out", tmp_path / "net")
    done = hwnas_cli("train", "--space", "mobilenetv3-tiny", *words)
    assert done.code == 0, done.err
    first, *_, last = done.err.splitlines()
    assert first.startswith("training: 2/4 images, loss ")
    assert last.startswith("training: 4/4 images, loss ")
