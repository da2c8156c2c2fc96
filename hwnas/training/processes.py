"""Who starts the processes of a training: hwnas itself, or a launcher that has started several of them already.

Fabric guesses from the environment. Within a Slurm allocation the guess is wrong: `salloc` and `sbatch` set the same
variables as `srun`, but start one process, and Fabric then waits for the others for ever. So nothing is left to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from hwnas.errors import InvalidValue

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_STARTED = "HWNAS_STARTED"  # set while hwnas starts processes: they have it, nothing that they start has


class OwnProcesses(LightningEnvironment):
    """hwnas starts all processes, on this machine, whatever a cluster or a script has set in the environment.

    `LightningEnvironment` alone waits for processes of others where a variable such as LOCAL_RANK or MASTER_ADDR is
    left over, as in many a batch script.
    """

    def __init__(self) -> None:
        super().__init__()
        self._started = os.environ.pop(_STARTED, None) is not None

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
        os.environ[_STARTED] = "1"
        try:
            fabric.launch()
        finally:
            del os.environ[_STARTED]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A program that starts several processes of one command and numbers them in their environment.

    Attributes:
        name: of the program.
        tasks: variable that holds the number of processes.
        per_node: variable that holds how many of them run on one node, ``2`` or Slurm's ``2(x3)``.
        needs: variables that must be there as well: where `tasks` alone may come from elsewhere.
        environment: Fabric's way to take part.
    """

    name: str
    tasks: str
    per_node: str
    needs: tuple[str, ...] = ()
    environment: type[ClusterEnvironment]

    def share(self, devices: int, environ: Mapping[str, str]) -> tuple[int, int]:
        """Processes on each node, and the number of nodes.

        Raises:
            InvalidValue: it started another number of processes than `devices`, or unequally many on the nodes.
        """
        tasks = _count(environ, self.tasks) or 0
        started = f"{self.name} started {tasks} processes of this command ({self.tasks}={environ[self.tasks]})"
        if tasks != devices:
            raise InvalidValue(
                f"{started}, and --devices is {devices}: all of them train together, one device each. Give --devices "
                f"{tasks}, or let {self.name} start 1 process, which starts the others itself"
            )
        per_node = _count(environ, self.per_node) if self.per_node in environ else tasks
        if not per_node or tasks % per_node:
            raise InvalidValue(
                f"{started}, not equally many on each node ({self.per_node}={environ[self.per_node]}); start equally "
                "many (srun --ntasks-per-node)"
            )
        return per_node, tasks // per_node


LAUNCHERS = (
    Launcher(
        name="torchrun",
        tasks="WORLD_SIZE",
        per_node="LOCAL_WORLD_SIZE",
        needs=("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK"),
        environment=TorchElasticEnvironment,
    ),
    # `sbatch` sets SLURM_NTASKS and SLURM_PROCID for its script, too, but nothing of a step. The shell that `salloc` or
    # `srun --pty` opens is a step of one task.
    Launcher(
        name="srun",
        tasks="SLURM_STEP_NUM_TASKS",
        per_node="SLURM_STEP_TASKS_PER_NODE",
        needs=("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
        environment=SrunTasks,
    ),
    Launcher(
        name="jsrun",
        tasks="JSM_NAMESPACE_SIZE",
        per_node="JSM_NAMESPACE_LOCAL_SIZE",
        needs=("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK"),
        environment=LSFEnvironment,
    ),
    Launcher(
        name="mpirun",
        tasks="OMPI_COMM_WORLD_SIZE",
        per_node="OMPI_COMM_WORLD_LOCAL_SIZE",
        environment=MPIEnvironment,
    ),
)


def started_by_training() -> bool:
    """Whether a training of this command started this process, to take part in it."""
    return _STARTED in os.environ


def launcher(environ: Mapping[str, str]) -> Launcher | None:
    """The launcher that started several processes of this command, by its environment; None if nobody did."""
    if _STARTED in environ:
        return None
    for one in LAUNCHERS:
        if all(name in environ for name in one.needs) and (_count(environ, one.tasks) or 1) > 1:
            return one
    return None


def make_fabric(accelerator: str, devices: int, precision: str, *, alone: bool = False) -> Fabric:
    """Devices, precision and processes of a training, not yet launched: `launch` does.

    Args:
        accelerator: auto, cpu or cuda.
        devices: processes in all, one a device.
        precision: 32-true or bf16-mixed.
        alone: whether this process computes for itself, also where a launcher started several of them.

    Raises:
        InvalidValue: a launcher started another number of processes.
        RuntimeError, ValueError, MisconfigurationException: the devices are not there.
    """
    from lightning_fabric import Fabric

    nodes, environment = 1, None
    started_by = None if alone else launcher(os.environ)
    if started_by:
        devices, nodes = started_by.share(devices, os.environ)
        try:
            environment = started_by.environment()
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


def _count(environ: Mapping[str, str], name: str) -> int | None:
    """The number in a variable, ``2`` or ``2(x3)``; None if there is none."""
    found = re.fullmatch(r"(\d+)(\(x\d+\))?", environ.get(name, ""))
    return int(found[1]) if found else None
