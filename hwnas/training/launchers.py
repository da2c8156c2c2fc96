"""Programs that start several processes of one command, identified by the environment variables that they set.

Within a Slurm allocation, `salloc` and `sbatch` set the same variables as `srun`, but start one process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.errors import InvalidValue

STARTED = "HWNAS_STARTED"  # set while hwnas starts processes; they inherit it, but their own child processes do not


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """A program that starts several processes of one command and numbers them in their environment.

    Attributes:
        name: name of the program.
        tasks: variable that holds the number of processes.
        per_node: variable that holds the number of processes on one node, ``2`` or Slurm's ``2(x3)``.
        needs: further variables that must be set, if other programs may set `tasks`.
        environment: module and name of Fabric's cluster environment class for this launcher.
    """

    name: str
    tasks: str
    per_node: str
    needs: tuple[str, ...] = ()
    environment: tuple[str, str]

    def share(self, devices: int, environ: Mapping[str, str]) -> tuple[int, int]:
        """Return the number of processes on each node, and the number of nodes.

        Raises:
            InvalidValue: it did not start `devices` processes, or not the same number on every node.
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
        environment=("lightning_fabric.plugins.environments.torchelastic", "TorchElasticEnvironment"),
    ),
    # `sbatch` also sets SLURM_NTASKS and SLURM_PROCID for its script, but no variables of a step. The shell that
    # `salloc` or `srun --pty` opens is a step with one task.
    Launcher(
        name="srun",
        tasks="SLURM_STEP_NUM_TASKS",
        per_node="SLURM_STEP_TASKS_PER_NODE",
        needs=("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
        environment=("hwnas.training.processes", "SrunTasks"),
    ),
    Launcher(
        name="jsrun",
        tasks="JSM_NAMESPACE_SIZE",
        per_node="JSM_NAMESPACE_LOCAL_SIZE",
        needs=("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK"),
        environment=("lightning_fabric.plugins.environments.lsf", "LSFEnvironment"),
    ),
    Launcher(
        name="mpirun",
        tasks="OMPI_COMM_WORLD_SIZE",
        per_node="OMPI_COMM_WORLD_LOCAL_SIZE",
        environment=("lightning_fabric.plugins.environments.mpi", "MPIEnvironment"),
    ),
)


def started_by_training() -> bool:
    """Return whether hwnas started this process as one process of a training."""
    return STARTED in os.environ


def launcher(environ: Mapping[str, str]) -> Launcher | None:
    """Return the launcher that started several processes of this command, from its environment; None without one."""
    if STARTED in environ:
        return None
    for one in LAUNCHERS:
        if all(name in environ for name in one.needs) and (_count(environ, one.tasks) or 1) > 1:
            return one
    return None


def _count(environ: Mapping[str, str], name: str) -> int | None:
    """Parse the number in a variable, ``2`` or ``2(x3)``; None if it is unset or malformed."""
    found = re.fullmatch(r"(\d+)(\(x\d+\))?", environ.get(name, ""))
    return int(found[1]) if found else None
