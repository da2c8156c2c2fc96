"""Trainings that are killed at any moment, through the command line."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from forks import Forked, Forks

RECIPE = """
schema = 1
batch_size = 16
ema_decay = 0.9
checkpoint_every = 3

[[phases]]
name = "largest"
steps = 20
learning_rate = 0.05
largest_of = { kernel = 1, depth = 1, expansion = 1 }

[[phases]]
name = "depth"
steps = 20
learning_rate = 0.05
largest_of = { expansion = 1 }

[[phases]]
name = "all"
steps = 20
learning_rate = 0.05

[augmentation]
mixup = 0.2
erase = 0.25
"""
KILLS = 10


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_at_10_random_moments_the_weights_are_the_same_bits(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)

    def start(folder: str) -> Forked:
        words = ["train", "--space", "mobilenetv3-tiny", "--data", "cluttered-digits"]
        return forks.start([*words, "--recipe", tmp_path / "recipe.toml", "--out", tmp_path / folder])

    began = time.monotonic()
    with start("whole") as process:
        assert process.wait() == 0, process.stderr.read_text()
    seconds = time.monotonic() - began

    rng = random.Random()  # a kill may come anywhere; there is no moment that must not pass
    kills, finished, steps = 0, list[str](), list[int]()
    while kills < KILLS or not finished:
        folder = f"killed{len(finished)}"
        with start(folder) as process:
            try:
                code = process.wait(rng.uniform(0, seconds * 0.7) if kills < KILLS else 300)
                assert code == 0, process.stderr.read_text()
                finished.append(folder)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                metrics = tmp_path / folder / "metrics.csv"
                steps.append(len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0)
    print(f"\n{kills} kills after {steps} of 60 steps, {len(finished)} trainings finished")
    assert len(set(steps)) > 2  # some kills came while it was training
    whole = (tmp_path / "whole" / "supernet.safetensors").read_bytes()
    for folder in finished:
        assert (tmp_path / folder / "supernet.safetensors").read_bytes() == whole
        assert rows(tmp_path / folder) == rows(tmp_path / "whole")


def rows(folder: Path) -> list[dict[str, str]]:
    """What was recorded of each step, but for its speed."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "images_per_s"} for row in csv.DictReader(file)]
