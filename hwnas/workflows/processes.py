"""Processes, devices and precision of a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from hwnas.errors import InvalidValue, UnknownName

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from hwnas.supernet import TrainConfig
    from hwnas.training.alone import Alone, Processes
    from hwnas.training.launchers import Nodes

Accelerator = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed"]
ACCELERATORS, PRECISIONS = get_args(Accelerator), get_args(Precision)


def launched(
    accelerator: str,
    devices: int,
    precision: str,
    *,
    config: TrainConfig | None = None,
    alone: bool = False,
    nodes: Nodes | None = None,
) -> Processes:
    """Processes, devices and precision of a training; several processes, started here, all return from this call.

    Args:
        accelerator: of `ACCELERATORS`.
        devices: total number of processes, one per device.
        precision: of `PRECISIONS`.
        config: of the training; its batch is checked before processes are started.
        alone: whether this process works alone, even if `srun` or another launcher started several.
        nodes: hosts that train together; None for this one alone, and for those of a launcher.

    Raises:
        InvalidValue: unknown, or not available on this host; a launcher started another number of processes; the batch
            cannot be split evenly among the processes.
    """
    from hwnas.data.base import check_batch

    one = _one_process(accelerator, devices, precision, alone=alone, nodes=nodes)
    if one:
        if config:
            check_batch(config.batch_size, 1, config.augmentation)
        return one
    from hwnas.training.processes import launch
    from hwnas.training.signals import end_together

    with _refused(accelerator, devices):
        fabric = _fabric(accelerator, devices, precision, alone=alone, nodes=nodes)
    if config:
        check_batch(config.batch_size, fabric.world_size, config.augmentation)
    with _refused(accelerator, devices):
        end_together(getattr(fabric.strategy.launcher, "procs", []))
        launch(fabric)
    return fabric


def check_devices(accelerator: str, devices: int, precision: str) -> None:
    """Check that the devices of a training are available, without starting processes.

    Raises:
        InvalidValue: unknown, or not available on this host.
    """
    if _one_process(accelerator, devices, precision, alone=True) is None:
        with _refused(accelerator, devices):
            _fabric(accelerator, devices, precision, alone=True)


@contextmanager
def _refused(accelerator: str, devices: int) -> Iterator[None]:
    """Translate Fabric's errors about devices."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise InvalidValue(f"cannot train on {devices} devices of {accelerator}: {error}") from error


def _one_process(
    accelerator: str, devices: int, precision: str, *, alone: bool, nodes: Nodes | None = None
) -> Alone | None:
    """This process for a training in one process; None for a training in several.

    Raises:
        InvalidValue, UnknownName: unknown, or not available on this host.
    """
    from hwnas.training.alone import alone_on
    from hwnas.training.launchers import launcher

    for what, given, known in (("accelerator", accelerator, ACCELERATORS), ("precision", precision, PRECISIONS)):
        if given not in known:
            raise UnknownName(what, given, known)
    if devices != 1 or nodes or not (alone or launcher(os.environ) is None):
        return None
    return alone_on(accelerator, precision)


def _fabric(accelerator: str, devices: int, precision: str, *, alone: bool, nodes: Nodes | None = None) -> Fabric:
    from hwnas.training.processes import make_fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # hide the number of processes
    return make_fabric(accelerator, devices, precision, alone=alone, nodes=nodes)
