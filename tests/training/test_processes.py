"""Training on several processes, through the command line, which starts them."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch

import hwnas.supernet
from hwnas.data import ClutteredDigits
from hwnas.errors import InvalidValue
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, read_facts, read_training
from hwnas.training.launchers import LAUNCHERS, Nodes, launcher
from hwnas.training.processes import make_fabric
from hwnas.workflows.processes import launched

SRUN = next(one for one in LAUNCHERS if one.name == "srun")
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


# One thread a process: two of each on two cores wait for each other.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


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


# What `sbatch --ntasks=2` sets for its script, and what many a script sets besides.
BATCH = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "MASTER_ADDR": "node17.invalid",
    "MASTER_PORT": "1",
    "LOCAL_RANK": "0",
    "NODE_RANK": "1",
    "WORLD_SIZE": "4",
}
STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_STEP_NODELIST": "node17",
}


def train(
    folder: Path, *, content: str = RECIPE, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    words = command(folder, devices=2, content=content)
    env = {**ENVIRONMENT, **(environ or {})}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=env)


def task(folder: Path, rank: int, *, devices: int = 2, port: int = 0) -> subprocess.Popen[str]:
    """A task of a step of two that `srun` started."""
    job = {name: value for name, value in BATCH.items() if name.startswith("SLURM")}
    numbers = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "MASTER_PORT": str(port or free_port())}
    words = command(folder, devices=devices, content=RECIPE.replace("steps = 4", "steps = 1"))
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, **job, **STEP, **numbers}
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def losses(folder: Path) -> list[list[float]]:
    with (folder / "metrics.csv").open() as file:
        return [
            [float(row[f"loss_{kind}"]) for kind in ("largest", "smallest", "random")] for row in csv.DictReader(file)
        ]


@pytest.mark.long
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """Also in a batch job, whose variables look as if others had started the processes."""
    done = train(tmp_path / "2", environ=BATCH)
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
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    one, two = (safetensors.torch.load_file(tmp_path / str(devices) / "weights.safetensors") for devices in (1, 2))
    for name, tensor in one.items():
        assert (tensor - two[name]).abs().max() < 1e-10, name


@pytest.mark.long
def test_a_batch_that_cannot_be_split(tmp_path: Path) -> None:
    done = train(tmp_path / "out", content=RECIPE.replace("batch_size = 64", "batch_size = 63"))
    assert done.returncode != 0
    assert "a batch of 63 images cannot be split evenly among 2 processes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_sigterm_ends_all_processes(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    words = command(folder, devices=2, content=RECIPE.replace("steps = 4", "steps = 4000"))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, **BATCH}) as process:
        try:
            until = time.monotonic() + 200
            while not ((folder / "metrics.csv").exists() and losses(folder)):
                assert process.poll() is None
                assert time.monotonic() < until, "the processes wait for each other"
                time.sleep(0.1)
            [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.terminate()
            _, stderr = process.communicate(timeout=200)
        finally:
            process.kill()
    assert process.returncode == 143, stderr
    assert "the same command resumes" in stderr
    assert "Traceback" not in stderr
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.long
def test_tasks_that_srun_started_train_together(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "net").mkdir()
    tasks = [task(tmp_path / "net", rank, port=port) for rank in (0, 1)]
    ends = [one.communicate(timeout=300) for one in tasks]
    assert [one.returncode for one in tasks] == [0, 0], ends
    assert [out.count("trained mobilenetv3-tiny") for out, _ in ends] == [1, 0]
    assert read_facts(tmp_path / "net").training["processes"] == 2


@pytest.mark.long
def test_sigterm_ends_a_task_that_waits_for_the_others(tmp_path: Path) -> None:
    """Waiting for a connection does not return to Python, which would handle the signal."""
    (tmp_path / "net").mkdir()
    port = free_port()
    alone, until = task(tmp_path / "net", 0, port=port), time.monotonic() + 200
    try:
        while True:  # it listens as soon as it waits
            assert alone.poll() is None
            assert time.monotonic() < until
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        alone.terminate()
        _, stderr = alone.communicate(timeout=200)
    finally:
        alone.kill()
    assert alone.returncode == 143, stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, None),
        (BATCH, None),
        ({**BATCH, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}, None),  # the shell of `salloc`
        ({**BATCH, **STEP}, "srun"),
        ({**BATCH, **STEP, "HWNAS_STARTED": "1"}, None),  # a process that hwnas started
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, None),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "torchrun"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, None),
        ({**BATCH, **STEP, "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0"}, "torchrun"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
    ],
)
def test_who_started_the_processes(environ: dict[str, str], name: str | None) -> None:
    found = launcher(environ)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("environ", "devices", "share"),
    [(STEP, 2, (2, 1)), ({"SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, 6, (2, 3))],
)
def test_tasks_on_nodes(environ: dict[str, str], devices: int, share: tuple[int, int]) -> None:
    assert SRUN.share(devices, environ) == share


def test_another_number_of_tasks_than_devices_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"srun started 2 processes .*SLURM_STEP_NUM_TASKS=2.* --devices is 4"):
        SRUN.share(4, STEP)
    with pytest.raises(InvalidValue, match=r"not equally many on each node \(SLURM_STEP_TASKS_PER_NODE=3,1\)"):
        SRUN.share(4, {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "3,1"})


@pytest.mark.parametrize("alone", [False, True])
def test_one_process_within_a_batch_job(monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    """With four tasks in the job, no error; in a step of two, a study computes for itself."""
    for variable, value in {**BATCH, "SLURM_NTASKS": "4", **(STEP if alone else {})}.items():
        monkeypatch.setenv(variable, value)
    fabric = launched("cpu", 1, "32-true", alone=alone)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


def test_the_tasks_of_a_step_know_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "node[17-18]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}
    ranks = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "4"}
    for variable in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"SLURM_JOB_ID": "77", **STEP, **nodes, **ranks}.items():
        monkeypatch.setenv(variable, value)
    fabric = make_fabric("cpu", 4, "32-true")
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank, fabric.node_rank) == (4, 3, 1, 1)
    environment = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
    assert (environment.main_address, environment.main_port) == ("node17", 15077)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_a_process_that_is_killed_ends_the_others_with_a_message(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    words = command(folder, devices=2, content=RECIPE.replace("steps = 4", "steps = 4000"))
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True) as process:
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


def node(folder: Path, rank: int, *, port: int) -> subprocess.Popen[str]:
    """The command of one of two hosts; both are this one, and connect over the loopback."""
    place = ["--num-nodes", "2", "--node-rank", str(rank), "--main-address", f"127.0.0.1:{port}"]
    words = [*command(folder, devices=2), *place]
    environment = {**ENVIRONMENT, **BATCH, "GLOO_SOCKET_IFNAME": "lo"}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the name of the loopback")
def test_two_hosts_train_as_one_does(tmp_path: Path) -> None:
    """The exact commands of docs/cluster.md; variables of a batch job do not count."""
    port = free_port()
    nodes = [node(tmp_path / "2", rank, port=port) for rank in (0, 1)]
    ends = [one.communicate(timeout=300) for one in nodes]
    assert [one.returncode for one in nodes] == [0, 0], ends
    assert [out.count("trained mobilenetv3-tiny") for out, _ in ends] == [1, 0]
    assert read_facts(tmp_path / "2").training["processes"] == 2
    alone = Supernet(make_space("mobilenetv3-tiny"), seed=0)
    config = read_training(tmp_path / "recipe.toml")
    hwnas.supernet.train(alone, ClutteredDigits(), config, seed=0, folder=tmp_path / "1")
    for ours, theirs in zip(losses(tmp_path / "1"), losses(tmp_path / "2"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the name of the loopback")
@pytest.mark.usefixtures("all_test_images")  # the other processes do not have the smaller test split of the tests
def test_a_host_with_another_checkpoint_is_refused(tmp_path: Path) -> None:
    """As one that does not share the folder."""
    from hwnas.training.checkpoint import CHECKPOINT

    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    alone = Supernet(make_space("mobilenetv3-tiny"), seed=0)
    command(tmp_path / "first" / "net", devices=2)  # writes the config
    config = read_training(tmp_path / "first" / "recipe.toml")
    hwnas.supernet.train(alone, ClutteredDigits(), config, seed=0, folder=tmp_path / "first" / "net", until=2)
    assert (tmp_path / "first" / "net" / CHECKPOINT).exists()
    port = free_port()
    nodes = [node(tmp_path / name / "net", rank, port=port) for rank, name in enumerate(("first", "second"))]
    ends = [one.communicate(timeout=300) for one in nodes]
    assert [one.returncode for one in nodes] == [2, 2], ends
    assert "is not the checkpoint of the first process" in ends[1][1], ends


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((1, None, None), None),
        ((2, 1, "node17"), Nodes(number=2, rank=1, address="node17", port=29500)),
        ((3, 0, "10.0.0.7:1234"), Nodes(number=3, rank=0, address="10.0.0.7", port=1234)),
        ((2, 0, "[fe80::1]:1234"), Nodes(number=2, rank=0, address="fe80::1", port=1234)),
    ],
)
def test_hosts_from_options(given: tuple[int, int | None, str | None], found: Nodes | None) -> None:
    assert Nodes.of(*given) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((1, 1, None), "are for several hosts: add --num-nodes 2"),
        ((1, None, "node17"), "are for several hosts: add --num-nodes 2"),
        ((2, None, "node17"), "--num-nodes 2 needs --node-rank, 0 on the first host to 1 on the last"),
        ((2, 0, None), "and --main-address"),
        ((2, 2, "node17"), "--node-rank is 2; with --num-nodes 2 it must be from 0 to 1"),
        ((2, 0, "node17:x"), "must be HOST or HOST:PORT, e.g. 192.168.0.7:29500; not 'node17:x'"),
        ((2, 0, "node17:70000"), "must be HOST or HOST:PORT"),
    ],
)
def test_hosts_that_cannot_be_are_refused(given: tuple[int, int | None, str | None], said: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(said)):
        Nodes.of(*given)


def test_processes_on_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Nodes(number=2, rank=1, address="node17", port=1234)
    with pytest.raises(InvalidValue, match=r"3 cannot be split among 2\. Give --devices 2, or a multiple"):
        make_fabric("cpu", 3, "32-true", nodes=two)
    for variable, value in BATCH.items():  # do not count
        monkeypatch.setenv(variable, value)
    fabric = make_fabric("cpu", 4, "32-true", nodes=two)
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank, fabric.node_rank) == (4, 2, 0, 1)
    environment = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
    assert (environment.main_address, environment.main_port) == ("node17", 1234)
    for variable, value in STEP.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidValue, match="srun started this command, and numbers the hosts: leave out --num-nodes"):
        launched("cpu", 2, "32-true", nodes=two)
