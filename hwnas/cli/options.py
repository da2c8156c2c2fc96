"""Options that several verbs share, and what they mean."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.streams import takes_unicode
from hwnas.errors import DataError, InvalidValue, OutputError, SpecError, UnknownName
from hwnas.files.atomic import reason_of
from hwnas.files.untrusted import parse_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from hwnas.data import Data
    from hwnas.latency import LatencyModel
    from hwnas.spaces import Space
    from hwnas.supernet import SupernetFacts
    from hwnas.targets import Target as ResolvedTarget

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
    typer.Option(help="With which a measurement shall keep the budget.", min=0.5, max=0.999, show_default="0.95"),
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


def fixed_space(name: str, fix: list[str] | None, channels: int | None = None, classes: int | None = None) -> Space:
    """The space that ``--space``, ``--fix``, ``--channels`` and ``--classes`` describe.

    Raises:
        UnknownName: no such space or variable.
        InvalidValue: ``--fix`` is not of the form variable=value, or the variable has no such value.
    """
    from hwnas.spaces import make_space

    choices: dict[str, list[int]] = {}
    for text in fix or []:
        variable, sign, values = text.partition("=")
        if variable in choices:
            raise InvalidValue(f"--fix {variable} is given twice; give its values together: {variable}=24,28")
        try:
            choices[variable] = [int(value) for value in values.split(",")]
        except ValueError:
            sign = ""
        if not sign:
            raise InvalidValue(f"--fix takes variable=value or variable=value,value; not {text!r}")
    return make_space(name, in_channels=channels, classes=classes).fix(**choices)


def held_confidence(confidence: float | None, no_margin: bool) -> float | None:
    """The confidence that ``--confidence`` and ``--no-margin`` describe; None for predictions without a margin.

    Raises:
        InvalidValue: both are given.
    """
    if no_margin and confidence is not None:
        raise InvalidValue(f"give --confidence or --no-margin, not both (--confidence is {confidence})")
    return None if no_margin else 0.95 if confidence is None else confidence


def table_file(target: ResolvedTarget, tables: Path | None) -> Path | None:
    """The file of a target's table in the folder of ``--tables``; None, the catalog's table, if it was left out."""
    return tables / f"{target.name}.csv" if tables else None


def latency_model(target: ResolvedTarget, tables: Path | None, space: Space) -> LatencyModel:
    """The latency model of a space on a target: from its table, or roofline's estimates, which need none.

    Raises:
        TableError: there is no table, or it lacks the space.
    """
    from hwnas.latency import load_model, read_table
    from hwnas.profiling import estimated_model

    if target.recipe.runtime == "roofline":
        return estimated_model(space, target)
    return load_model(read_table(target, table_file(target, tables)), space)


def reopen_data(facts: SupernetFacts) -> Data:
    """The data that a supernet was trained on, from what its facts say.

    Raises:
        DataError: it has other classes now.
    """
    from hwnas.data import open_data

    name, path = facts.data.get("name"), facts.data.get("path")
    if name is None:
        raise DataError(
            "this supernet was imported without its images; import it again with --data-path FOLDER, "
            "which has train/<class>/ and val/<class>/"
        )
    data = open_data(str(name), path=Path(str(path)) if path else None)
    if list(data.classes) != facts.classes:
        raise DataError(
            f"the supernet was trained on the classes {', '.join(facts.classes)}, but {path or data.name} now has "
            f"{', '.join(data.classes)}: restore the data, or train anew"
        )
    return data


def read_arch(path: Path) -> tuple[dict[str, int], float | None]:
    """The arch in a file that `hwnas search` wrote, and its budget, if it has one.

    Raises:
        SpecError: the file cannot be read, or holds no arch.
    """
    try:
        answer = parse_json(path.read_bytes(), "its JSON", SpecError)
        if not isinstance(answer, dict) or not isinstance(answer.get("arch"), dict):
            raise ValueError('it has no key "arch" with a value for each variable of the space')
        values, budget_ms = answer["arch"], answer.get("budget_ms")
        # Of JSON: true, which Python counts as 1, and integers that no float holds.
        number = isinstance(budget_ms, int | float) and not isinstance(budget_ms, bool)
        if budget_ms is not None and not (number and 0 < budget_ms <= sys.float_info.max):
            raise ValueError(f"budget_ms is {budget_ms!r:.40}; it should be a positive number of milliseconds")
    except (OSError, ValueError, SpecError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise SpecError(
            f"{path} does not contain an architecture: {reason}. `hwnas search --out FILE` writes one."
        ) from error
    return values, budget_ms


def check_folder(out: Path, what: str, *, goes_on: bool = False) -> None:
    """Check, before long work, that something may be written into a folder.

    Args:
        out: the folder.
        what: is written.
        goes_on: with a training whose checkpoint the folder may hold.

    Raises:
        OutputError: it is a file or a stage of a run, or holds a supernet, which would be lost.
    """
    from hwnas.pipeline.cache import is_stage
    from hwnas.supernet.store import FACTS
    from hwnas.training.checkpoint import CHECKPOINT

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; a {what} is a folder, choose another name")
    if is_stage(out):
        raise OutputError(
            f"{out} is a stage of a run, which nothing but its `hwnas compile` writes to; choose another folder"
        )
    if (out / FACTS).exists() and not (goes_on and (out / CHECKPOINT).exists()):
        raise OutputError(f"{out} holds a supernet already; choose another folder, or delete this one")


def evaluations_folder(supernet: Path) -> Path:
    """Where verbs keep what they evaluated on a supernet: its own folder, unless nothing may be written there.

    For a stage of a run, which only the run writes to, and for a folder that is not writable, it is ``evaluations`` in
    `hwnas.targets.home`. File names contain the hash of the weights, so supernets share that folder without conflicts,
    and a supernet that was moved finds its evaluations again.
    """
    from hwnas.pipeline.cache import is_stage
    from hwnas.targets import home

    return home() / "evaluations" if is_stage(supernet) or not os.access(supernet, os.W_OK) else supernet


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
