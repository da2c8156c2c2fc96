"""Training in several processes, which either hwnas or a launcher starts.

By default, Fabric detects the launcher from the environment. Within a Slurm allocation the detection is wrong: `salloc`
and `sbatch` set the same variables as `srun`, but start one process, and Fabric then waits forever for the others. This
module therefore always passes the cluster environment to Fabric.
"""

from __future__ import annotations

import os
from importlib import import_module

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from hwnas.errors import InvalidValue
from hwnas.training.launchers import STARTED, Nodes, launcher


class OwnProcesses(LightningEnvironment):
    """hwnas starts all processes of this machine, and ignores variables that a cluster or a script has set.

    `LightningEnvironment` alone waits for external processes if a variable such as LOCAL_RANK or MASTER_ADDR is set, as
    in many batch scripts.

    Args:
        nodes: the machines that train together; None for this one alone.
    """

    def __init__(self, nodes: Nodes | None = None) -> None:
        super().__init__()
        self._nodes = nodes
        self._started = os.environ.pop(STARTED, None) is not None

    @property
    def creates_processes_externally(self) -> bool:
        """Whether hwnas started this process."""
        return self._started

    @property
    def main_address(self) -> str:
        """The first machine."""
        return self._nodes.address if self._nodes else "127.0.0.1"

    @property
    def main_port(self) -> int:
        """A free port, which the first process chooses; of several machines, the one that the user chose."""
        if self._nodes:
            return self._nodes.port
        if not self._started:
            os.environ.pop("MASTER_PORT", None)
        return super().main_port

    def local_rank(self) -> int:
        """0 in the first process."""
        return super().local_rank() if self._started else 0

    def node_rank(self) -> int:
        """Number of this machine."""
        return self._nodes.rank if self._nodes else 0

    def launch(self, fabric: Fabric) -> None:
        """Start the other processes and connect to them."""
        # Otherwise torch looks for the rendezvous of torchrun instead of one among these processes.
        os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
        os.environ[STARTED] = "1"
        try:
            fabric.launch()
        finally:
            del os.environ[STARTED]


class SrunTasks(SLURMEnvironment):
    """The tasks of a step that `srun` started.

    It reads the variables of the step. `SLURMEnvironment` reads those of the job, which include the tasks of other
    steps, and it raises without ``--ntasks-per-node``.
    """

    def __init__(self) -> None:
        ClusterEnvironment.__init__(self)

    @property
    def main_address(self) -> str:
        """MASTER_ADDR, or the first node of the step."""
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        one = os.environ.get("SLURM_STEP_NUM_NODES", "1") == "1"
        return os.environ.get("MASTER_ADDR") or ("127.0.0.1" if one else self.resolve_root_node_address(nodes))

    @property
    def main_port(self) -> int:
        """MASTER_PORT, or a port computed from the job and step numbers, so that all tasks use the same one."""
        job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        return int(os.environ.get("MASTER_PORT") or 15_000 + (job + 101 * step) % 10_000)

    def world_size(self) -> int:
        """Number of tasks of the step."""
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Do nothing: `Launcher.share` has checked the settings."""


def make_fabric(
    accelerator: str, devices: int, precision: str, *, alone: bool = False, nodes: Nodes | None = None
) -> Fabric:
    """Create the Fabric of a training; `launch` launches it. A training in one process needs no Fabric.

    Args:
        accelerator: auto, cpu or cuda.
        devices: total number of processes, one per device.
        precision: 32-true or bf16-mixed.
        alone: whether this process trains alone, even if a launcher started several processes.
        nodes: the machines that train together, if no launcher starts the processes; None for this one alone.

    Raises:
        InvalidValue: a launcher started a different number of processes, or its environment needs a missing package; it
            numbers the machines, and `nodes` does, too; the processes cannot be equally many on each machine.
        RuntimeError, ValueError, MisconfigurationException: the devices are not available.
    """
    number, environment = 1, None
    started_by = None if alone else launcher(os.environ)
    if started_by:
        if nodes:
            raise InvalidValue(
                f"{started_by.name} started this command, and numbers the hosts: leave out --num-nodes, --node-rank "
                "and --main-address"
            )
        devices, number = started_by.share(devices, os.environ)
        try:
            module, name = started_by.environment
            environment = getattr(import_module(module), name)()
        except ModuleNotFoundError as error:
            raise InvalidValue(
                f"{started_by.name} started this command, and taking part in that needs a package: {error}"
            ) from error
    elif nodes:
        devices, number = nodes.share(devices), nodes.number
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=number,
        precision=precision,  # type: ignore[arg-type]
        strategy="ddp" if devices * number > 1 else "auto",
        plugins=[environment or OwnProcesses(nodes)],
    )


def launch(fabric: Fabric) -> None:
    """Start and connect the processes of a training; execution continues in each of them."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    if isinstance(environment, OwnProcesses):
        environment.launch(fabric)
    else:
        fabric.launch()
