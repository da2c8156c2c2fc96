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
PORT = 29500  # of the first host, as in torchrun
_LAST_PORT = 65535
_ADDRESS = re.compile(r"(?P<host>[^\s:\[\]]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Hosts that train together, on each of which the user starts the same command.

    Attributes:
        number: of the hosts.
        rank: of this one, from 0; the first one writes the files.
        address: of the first one.
        port: on which it listens.
    """

    number: int
    rank: int
    address: str
    port: int

    @classmethod
    def of(cls, number: int, rank: int | None, address: str | None) -> Nodes | None:
        """The hosts of ``--num-nodes``, ``--node-rank`` and ``--main-address`` (HOST or HOST:PORT); None for one.

        Raises:
            InvalidValue: one of them is missing or invalid.
        """
        if number == 1:
            if rank or address:
                raise InvalidValue("--node-rank and --main-address are for several hosts: add --num-nodes 2")
            return None
        if rank is None or address is None:
            raise InvalidValue(
                f"--num-nodes {number} needs --node-rank, 0 on the first host to {number - 1} on the last, and "
                "--main-address, the name or the address of the first host, the same on all"
            )
        if not 0 <= rank < number:
            raise InvalidValue(f"--node-rank is {rank}; with --num-nodes {number} it must be from 0 to {number - 1}")
        found = _ADDRESS.fullmatch(address)
        if not found or int(found["port"] or PORT) > _LAST_PORT:
            raise InvalidValue(f"--main-address must be HOST or HOST:PORT, e.g. 192.168.0.7:{PORT}; not {address!r}")
        return cls(number=number, rank=rank, address=found["host"].strip("[]"), port=int(found["port"] or PORT))

    def share(self, devices: int) -> int:
        """Number of processes on each host.

        Raises:
            InvalidValue: they cannot be equally many on each.
        """
        if devices % self.number:
            raise InvalidValue(
                f"--devices is the number of processes on all hosts together, equally many on each: {devices} cannot "
                f"be split among {self.number}. Give --devices {self.number}, or a multiple"
            )
        return devices // self.number


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
