"""Options that several verbs share, and what they mean."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.streams import takes_unicode
from hwnas.errors import InvalidValue, UnknownName

if TYPE_CHECKING:
    from lightning_fabric import Fabric


Target = Annotated[
    str,
    typer.Option(help="device/recipe; the device 'this' is the present host.", metavar="DEVICE/RECIPE"),
]
SpaceName = Annotated[
    str,
    typer.Option(
        "--space",
        help="Search space: {spaces}; or path/to/file.py:NAME.",
    ),
]
Fix = Annotated[
    list[str] | None,
    typer.Option("--fix", help="Hold a variable to a value or several: resolution=160,192. May be repeated."),
]
Channels = Annotated[int | None, typer.Option(help="Channels of the images; the space's usual number if left out.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes; the space's usual number if left out.")]
DataName = Annotated[str, typer.Option("--data", help="Dataset: {datasets}; or path/to/file.py:NAME.")]
DataPath = Annotated[
    Path | None,
    typer.Option("--data-path", help="Folder of images (train/<class>/, val/<class>/), or of a Hugging Face dataset."),
]
Budgets = Annotated[
    list[str],
    typer.Option(
        "--budget",
        help="Latency: 0.8ms, or 50% of the largest network's. NAME=VALUE for other targets (device/recipe=4ms) "
        "and for macs, params, size_bytes, peak_activation_bytes. May be repeated: all are kept.",
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        help="Confidence that the measured latency stays within the budget.", min=0.5, max=0.999, show_default="0.95"
    ),
]
NoMargin = Annotated[
    bool,
    typer.Option("--no-margin", help="Hold the prediction itself below the budget, as imported tables need it."),
]
Images = Annotated[int, typer.Option(help="Validation images an evaluation takes.", min=1)]
Tables = Annotated[
    Path | None,
    typer.Option(help="Folder of latency tables; the user's data folder or $HWNAS_HOME if left out."),
]
Training = Annotated[
    Path | None, typer.Option(help="Training config, a TOML file; one phase of 1100 updates if left out.")
]
Teacher = Annotated[
    Path | None, typer.Option(help="Folder of a trained supernet, whose largest network teaches as well.")
]
Accelerator = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[
    int,
    typer.Option(
        help="Processes in all, one a device; on the CPU they share its cores. hwnas starts them; those that srun or "
        "torchrun started take part.",
        min=1,
    ),
]
TrainingPrecision = Annotated[str, typer.Option("--precision", help="32-true, or bf16-mixed where the device has it.")]
Resume = Annotated[bool, typer.Option(help="Go on from the folder's checkpoint, or delete it and start anew.")]
ACCELERATORS, PRECISIONS = ("auto", "cpu", "cuda"), ("32-true", "bf16-mixed")
MAX_SEED = 2**32 - 1
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.", min=0, max=MAX_SEED)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout; progress goes to stderr.")]


def launched(accelerator: str, devices: int, precision: str, *, alone: bool = False) -> Fabric:
    """Processes, devices and precision of a training; with several, this process and those that it starts run on.

    Args:
        accelerator: of `ACCELERATORS`.
        devices: processes in all, one a device.
        precision: of `PRECISIONS`.
        alone: whether this process computes for itself, also where `srun` or another launcher started several of them.

    Raises:
        InvalidValue: unknown, or not available on this host; a launcher started another number of processes.
    """
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from hwnas.cli.processes import end_together
    from hwnas.training.processes import launch, make_fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # how many processes there are is no news
    for what, given, known in (("accelerator", accelerator, ACCELERATORS), ("precision", precision, PRECISIONS)):
        if given not in known:
            raise UnknownName(what, given, known)
    try:
        fabric = make_fabric(accelerator, devices, precision, alone=alone)
        if fabric.world_size > 1:
            end_together(getattr(fabric.strategy.launcher, "procs", []))
        launch(fabric)
    except (RuntimeError, ValueError, MisconfigurationException) as error:
        raise InvalidValue(f"cannot train on {devices} devices of {accelerator}: {error}") from error
    return fabric


def print_json(document: object) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=not takes_unicode()))
