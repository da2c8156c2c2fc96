"""Training on several processes, through the command line, which starts them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

RECIPE = """
schema = 1
batch_size = 16
ema_decay = 0.5

[[phases]]
name = "kernel"
steps = 4
learning_rate = 0.02
largest_of = { depth = 1, expansion = 1 }

[[phases]]
name = "all"
steps = 4
learning_rate = 0.02
"""


def train(folder: Path, *, devices: int) -> subprocess.CompletedProcess[str]:
    recipe = folder.parent / "recipe.toml"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "hwnas.cli.main", "train", "--space", "mobilenetv3-tiny", "--recipe", str(recipe)]
    command += ["--data", "cluttered-digits", "--accelerator", "cpu", "--devices", str(devices), "--out", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def losses(folder: Path) -> list[list[float]]:
    with (folder / "metrics.csv").open() as file:
        return [
            [float(row[f"loss_{kind}"]) for kind in ("largest", "smallest", "random")] for row in csv.DictReader(file)
        ]


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    for devices in (1, 2):
        done = train(tmp_path / str(devices), devices=devices)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trained mobilenetv3-tiny") == 1
    one, two = (losses(tmp_path / str(devices)) for devices in (1, 2))
    assert len(one) == 8
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    # Not only the losses: what is written is the same up to rounding.
    states = [safetensors.torch.load_file(tmp_path / str(n) / "supernet.safetensors") for n in (1, 2)]
    for name, tensor in states[0].items():
        assert (tensor.double() - states[1][name].double()).abs().max() < 1e-3, name


def test_a_batch_that_cannot_be_split(tmp_path: Path) -> None:
    done = train(tmp_path / "out", devices=3)
    assert done.returncode != 0
    assert "a batch of 16 images cannot be split evenly among 3 processes" in done.stderr
    assert "Traceback" not in done.stderr
