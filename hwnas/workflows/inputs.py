"""From names, folders and files to the objects that use cases work on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import DataError, InvalidValue, OutputError, SpecError
from hwnas.files.atomic import reason_of
from hwnas.files.untrusted import parse_json

if TYPE_CHECKING:
    from hwnas.data import Data
    from hwnas.latency import LatencyModel
    from hwnas.spaces import Space
    from hwnas.supernet import SupernetFacts
    from hwnas.targets import Target

STAGE_INPUTS = "inputs.json"  # in the folder of a job's stage: what the stage depends on


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


def table_file(target: Target, tables: Path | None) -> Path | None:
    """The file of a target's table in the folder of ``--tables``; None, the catalog's table, if it was left out."""
    return tables / f"{target.name}.csv" if tables else None


def latency_model(target: Target, tables: Path | None, space: Space) -> LatencyModel:
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
    from hwnas.targets import home

    return home() / "evaluations" if is_stage(supernet) or not os.access(supernet, os.W_OK) else supernet


def is_stage(folder: Path) -> bool:
    """Whether a folder is a stage of a run: nothing but the run writes into it."""
    return (folder / STAGE_INPUTS).is_file()
