"""Trainings in several processes, which hwnas itself starts, or a launcher has started already.

Fabric guesses from the environment. Within a Slurm allocation the guess is wrong: `salloc` and `sbatch` set the same
variables as `srun`, but start one process, and Fabric then waits for the others for ever. So nothing is left to it.
"""

from __future__ import annotations

import os
from importlib import import_module

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from hwnas.errors import InvalidValue
from hwnas.training.launchers import STARTED, launcher


class OwnProcesses(LightningEnvironment):
    """hwnas starts all processes, on this machine, whatever a cluster or a script has set in the environment.

    `LightningEnvironment` alone waits for processes of others where a variable such as LOCAL_RANK or MASTER_ADDR is
    left over, as in many a batch script.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started = os.environ.pop(STARTED, None) is not None

    @property
    def creates_processes_externally(self) -> bool:
        """Whether this process is one of those that were started."""
        return self._started

    @property
    def main_address(self) -> str:
        """This machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """A free port, which the first process chooses."""
        if not self._started:
            os.environ.pop("MASTER_PORT", None)
        return super().main_port

    def local_rank(self) -> int:
        """0 in the first process."""
        return super().local_rank() if self._started else 0

    def node_rank(self) -> int:
        """There is one node."""
        return 0

    def launch(self, fabric: Fabric) -> None:
        """Start the other processes and connect to them."""
        # A rendezvous of torchrun's would be looked for in place of one among these processes.
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
        os.environ[STARTED] = "1"
        try:
            fabric.launch()
        finally:
            del os.environ[STARTED]


class SrunTasks(SLURMEnvironment):
    """The tasks of a step that `srun` started.

    The figures are the step's. Those of the job, which `SLURMEnvironment` reads, also count tasks of other steps, and
    without ``--ntasks-per-node`` it refuses to start.
    """

    def __init__(self) -> None:
        ClusterEnvironment.__init__(self)

    @property
    def main_address(self) -> str:
        """The first node of the step, unless MASTER_ADDR says otherwise."""
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        one = os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1"
        return os.environ.get("MASTER_ADDR") or ("127.0.0.1" if one else self.resolve_root_node_address(nodes))

    @property
    def main_port(self) -> int:
        """MASTER_PORT, or one that follows from the job and the step: all tasks come to the same."""
        job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return int(os.environ.get("MASTER_PORT") or 15_000 + (job + 101 * step) % 10_000)

    def world_size(self) -> int:
        """Number of tasks of the step."""
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """`Launcher.share` has checked them."""


def make_fabric(accelerator: str, devices: int, precision: str, *, alone: bool = False) -> Fabric:
    """Devices, precision and processes of a training, not yet launched: `launch` does. One process needs no Fabric.

    Args:
        accelerator: auto, cpu or cuda.
        devices: processes in all, one a device.
        precision: 32-true or bf16-mixed.
        alone: whether this process computes for itself, also where a launcher started several of them.

    Raises:
        InvalidValue: a launcher started another number of processes.
        RuntimeError, ValueError, MisconfigurationException: the devices are not there.
    """
    nodes, environment = 1, None
    started_by = None if alone else launcher(os.environ)
    if started_by:
        devices, nodes = started_by.share(devices, os.environ)
        try:
            module, name = started_by.environment
            environment = getattr(import_module(module), name)()
        except ModuleNotFoundError as error:
            raise InvalidValue(
                f"{started_by.name} started this command, and taking part in that needs a package: {error}"
            ) from error
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=precision,  # type: ignore[arg-type]
        strategy="ddp" if devices * nodes > 1 else "auto",
        plugins=[environment or OwnProcesses()],
    )


def launch(fabric: Fabric) -> None:
    """Connect the processes of a training; with several, this one and those that it starts run on."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    if isinstance(environment, OwnProcesses):
        environment.launch(fabric)
    else:
        fabric.launch()
