"""Training on several processes, through the command line, which starts them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch

import hwnas.supernet
from hwnas.data import ClutteredDigits
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, read_training

RECIPE = """
schema = 1
batch_size = 64
ema_decay = 0.5

[[phases]]
name = "kernel"
steps = 4
learning_rate = 0.01
largest_of = { depth = 1, expansion = 1 }

[[phases]]
name = "all"
steps = 4
learning_rate = 0.01
"""


def command(folder: Path, *, devices: int, content: str = RECIPE) -> list[str]:
    """The command line of a training into a folder."""
    recipe = folder.parent / "recipe.toml"
    recipe.write_text(content)
    words = [sys.executable, "-m", "hwnas.cli.main", "train", "--space", "mobilenetv3-tiny", "--recipe", str(recipe)]
    return [
        *words,
        "--data",
        "cluttered-digits",
        "--accelerator",
        "cpu",
        "--devices",
        str(devices),
        "--out",
        str(folder),
    ]


def train(folder: Path, *, content: str = RECIPE) -> subprocess.CompletedProcess[str]:
    words = command(folder, devices=2, content=content)
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def losses(folder: Path) -> list[list[float]]:
    with (folder / "metrics.csv").open() as file:
        return [
            [float(row[f"loss_{kind}"]) for kind in ("largest", "smallest", "random")] for row in csv.DictReader(file)
        ]


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    done = train(tmp_path / "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained mobilenetv3-tiny") == 1
    alone = Supernet(make_space("mobilenetv3-tiny"), seed=0)
    config = read_training(tmp_path / "recipe.toml")
    hwnas.supernet.train(alone, ClutteredDigits(), config, seed=0, folder=tmp_path / "1")
    one, two = (losses(tmp_path / devices) for devices in ("1", "2"))
    assert len(one) == 8
    for ours, theirs in zip(one, two, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    # Not only the losses: what is written is the same up to rounding.
    state = safetensors.torch.load_file(tmp_path / "2" / "supernet.safetensors")
    for name, tensor in alone.state_dict().items():
        assert (tensor.double() - state[name].double()).abs().max() < 1e-3, name


DOUBLE = """
import sys
from pathlib import Path
import safetensors.torch
from lightning_fabric import Fabric
from hwnas.data import Augmentation, ClutteredDigits
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train

class Doubled(ClutteredDigits):
    def train_batch(self, *args, **kwargs):
        images, shares = super().train_batch(*args, **kwargs)
        return images.double(), shares.double()

devices, folder = int(sys.argv[1]), Path(sys.argv[2])
fabric = Fabric(accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto")
fabric.launch()
phases = [
    Phase(name="largest", steps=3, learning_rate=0.2, largest_of={"depth": 1, "expansion": 1}),
    Phase(name="all", steps=3, learning_rate=0.2),
]
config = TrainConfig(phases=phases, batch_size=8, augmentation=Augmentation(mixup=0.2, cutmix=1.0, erase=0.5))
supernet = Supernet(make_space("mobilenetv3-tiny")).double()
folder.mkdir(parents=True, exist_ok=True)
train(supernet, Doubled(), config, seed=0, folder=folder, fabric=fabric)
if fabric.is_global_zero:
    safetensors.torch.save_file(supernet.state_dict(), folder / "weights.safetensors")
"""


@pytest.mark.long
def test_only_rounding_tells_two_processes_from_one(tmp_path: Path) -> None:
    """In double precision nothing is left, at a usual learning rate and with all augmentations."""
    script = tmp_path / "double.py"
    script.write_text(DOUBLE)
    for devices in (1, 2):
        words = [sys.executable, str(script), str(devices), str(tmp_path / str(devices))]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (safetensors.torch.load_file(tmp_path / str(devices) / "weights.safetensors") for devices in (1, 2))
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() < 1e-10, name


def test_a_batch_that_cannot_be_split(tmp_path: Path) -> None:
    done = train(tmp_path / "out", content=RECIPE.replace("batch_size = 64", "batch_size = 63"))
    assert done.returncode != 0
    assert "a batch of 63 images cannot be split evenly among 2 processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_a_process_that_is_killed_ends_the_others_with_a_message(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    words = command(folder, devices=2, content=RECIPE.replace("steps = 4", "steps = 4000"))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            until = time.monotonic() + 200
            while not ((folder / "metrics.csv").exists() and losses(folder)):
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGKILL)
            _, stderr = process.communicate(timeout=200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # both processes: nothing of them stays where the test fails
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert "error: another process of this training has ended" in stderr
