"""From names, folders and files to the objects of use cases."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import DataError, OutputError, some

if TYPE_CHECKING:
    from pydantic import JsonValue

    from hwnas.accuracy import Evaluator
    from hwnas.data import Augmentation, Data, DataOptions
    from hwnas.engines import Engine
    from hwnas.latency import LatencyModel
    from hwnas.spaces import InputKind, Space
    from hwnas.supernet import SupernetFacts
    from hwnas.targets import Target

STAGE_INPUTS = "inputs.json"  # in the folder of a job's stage: its inputs
Place = str | Path  # a file or a folder
Fix = Mapping[str, int | str | Sequence[int | str]]


def space_of(
    space: str | Space,
    fix: Fix | None = None,
    *,
    channels: int | None = None,
    vocabulary: int | None = None,
    reads: InputKind | None = None,
    classes: int | None = None,
) -> Space:
    """A space, from its name or itself, with restrictions.

    Args:
        space: the space or its name.
        fix: variable -> the value or values that remain.
        channels: of the images, for a space given by name; its default if None.
        vocabulary: number of tokens, of a space of sequences, likewise.
        reads: in place of both.
        classes: likewise.

    Raises:
        UnknownName: no such space or variable.
        InvalidValue: the variable has no such value.
    """
    from hwnas.spaces import make_space

    made = space
    if isinstance(space, str):
        made = make_space(space, in_channels=channels, vocabulary=vocabulary, reads=reads, classes=classes)
    assert not isinstance(made, str)
    return made.fix(**(fix or {}))


def space_for(space: str | Space, data: Data, fix: Fix | None = None) -> Space:
    """A space for the channels and classes of a dataset; see `space_of`."""
    return space_of(space, fix, reads=data.reads, classes=len(data.classes))


def target_of(target: str | Target) -> Target:
    """A target, from ``device/recipe`` or itself.

    Raises:
        UnknownName: no such device or recipe.
    """
    from hwnas.targets import resolve_target

    return resolve_target(target) if isinstance(target, str) else target


def table_in(tables: Path, target: Target) -> Path:
    """The file of a target's table in a folder of tables."""
    return tables / f"{target.name}.csv"


def latency_model(target: Target, tables: Path | None, space: Space) -> LatencyModel:
    """The latency model of a space on a target: from its table, or from its runtime's estimates.

    Raises:
        TableError: there is no table, or it lacks the space.
    """
    from hwnas.latency import load_model, read_table
    from hwnas.profiling import estimated_model

    if target.recipe.facts.estimates:
        return estimated_model(space, target)
    return load_model(read_table(target, table_in(tables, target) if tables else None, space=space), space)


def prediction(target: Target, tables: Path | None, space: Space) -> tuple[LatencyModel | None, str]:
    """The latency model of a space on a target, if there is one; else None and the reason.

    Raises:
        TableError: there is no such folder of tables.
        TableCorrupt, TableMismatch, SpecError: there is a table, but it cannot be used.
    """
    from hwnas.errors import TableCorrupt, TableError, TableMismatch
    from hwnas.latency.table import profile_command

    if tables and not tables.is_dir():
        raise TableError(
            f"{tables} is not a folder of latency tables; create one with: {profile_command(space, target, tables)}"
        )
    try:
        return latency_model(target, tables, space), ""
    except (TableCorrupt, TableMismatch):
        raise
    except TableError as error:  # no table, or no rows for this space
        return None, str(error)


def data_of(
    data: str | Data, path: Place | None, options: DataOptions | None = None
) -> tuple[Data, dict[str, JsonValue]]:
    """A dataset, from its name or itself, and the facts to open it again.

    Args:
        data: its name, or the dataset.
        path: its folder, if it is read from disk.
        options: how its images are read; the defaults if None. A dataset that is already open has its own.

    Raises:
        UnknownName, DataError: there is no such dataset, or it cannot be read.
        InvalidValue: the dataset takes no such options.
    """
    from hwnas.data import DataOptions, open_data

    if isinstance(data, str):
        opened = open_data(data, path=Path(path) if path else None, options=options or DataOptions())
    else:
        opened = data
    return opened, facts_of(opened.name, path, opened)


def facts_of(name: str, path: Place | None, data: Data) -> dict[str, JsonValue]:
    """The facts to open a dataset again: its name, the absolute path of its folder, its options, if it takes any."""
    facts: dict[str, JsonValue] = {"name": name, "path": str(Path(path).absolute()) if path else None}
    options = data.recorded_options()
    return facts if options is None else facts | {"options": options}


def moved(facts: SupernetFacts, path: Place | None) -> SupernetFacts:
    """The facts of a supernet with another folder of its data; the same if `path` is None.

    A supernet that was imported without images gets those of an image folder.
    """
    if path is None:
        return facts
    data = facts.data | {"name": facts.data.get("name") or "images", "path": str(Path(path).absolute())}
    return facts.model_copy(update={"data": data})


def reopen_data(facts: SupernetFacts) -> Data:
    """The data of a supernet, from its facts.

    Raises:
        DataError: they are not where they were, or their classes have changed.
        CheckpointError: the recorded options are malformed.
    """
    from hwnas.data import open_data
    from hwnas.data.options import DataOptions, older_options, read_options

    name, path = facts.data.get("name"), facts.data.get("path")
    if name is None:
        raise DataError(
            "this supernet was imported without its images; import it again with the option --data-path "
            "and a folder of images, with train/<class>/ and val/<class>/"
        )
    recorded = facts.data.get("options")
    if isinstance(recorded, Mapping):
        options = read_options(recorded)
    else:  # of an older version, or a dataset without options
        options = older_options(facts.domain.in_channels) if name in ("images", "huggingface") else DataOptions()
    if path and not Path(str(path)).exists():
        raise DataError(f"{path}, the supernet's images, does not exist; add --data-path with their present folder")
    data = open_data(str(name), path=Path(str(path)) if path else None, recorded=True, options=options)
    if list(data.classes) != facts.classes:
        raise DataError(
            f"the supernet was trained on the classes {some(facts.classes)}, but {path or data.name} now has "
            f"{some(data.classes)}: restore the data, name another folder with --data-path, or train again"
        )
    if data.task != facts.task:
        raise DataError(
            f"the supernet was trained on data of the task {facts.task}, but {path or data.name} is now of the task "
            f"{data.task}: restore the data, name another folder with --data-path, or train again"
        )
    return data


def evaluator_of(
    supernet: Place,
    *,
    images: int | None,
    calibration_images: int = 2000,
    seed: int = 1,
    data: Data | None = None,
    metric: str | None = None,
    positive: str | None = None,
    data_path: Place | None = None,
    engine: Engine | None = None,
) -> tuple[Evaluator, SupernetFacts]:
    """An evaluator on a supernet from `hwnas train`, and the supernet's facts.

    Args:
        supernet: the folder.
        images: number of validation images per evaluation; all if None.
        calibration_images: training images for BN re-calibration.
        seed: of their choice.
        data: its dataset; opened again if None.
        metric: what is evaluated (`hwnas.tasks.parse_metric`); by default top1, or mAP for several labels.
        positive: class of the metric.
        data_path: folder where the dataset is now, if it was moved.
        engine: where groups of subnets are evaluated; this process if None.

    Raises:
        SpecError, DataError: the folder is not a supernet; the classes of the data have changed.
        UnknownName, InvalidValue: no such metric or class.
    """
    from hwnas.accuracy import Evaluator
    from hwnas.data.augment import calibration_augmentation
    from hwnas.engines import SERIAL
    from hwnas.supernet import load_supernet
    from hwnas.tasks import parse_metric

    network, facts = load_supernet(Path(supernet))
    facts = moved(facts, data_path)
    opened = data or reopen_data(facts)
    evaluator = Evaluator(
        network,
        opened,
        images=images,
        calibration_images=calibration_images,
        seed=seed,
        metric=parse_metric(metric, facts.classes, positive, task=opened.task),
        augmentation=calibration_augmentation(trained_augmentation(facts)),
        engine=engine or SERIAL,
    )
    if evaluator.engine is not SERIAL:
        how: dict[str, Any] = {"images": images, "calibration_images": calibration_images, "seed": seed}
        how |= {"metric": metric, "positive": positive, "data_path": data_path}
        evaluator.again = partial(_same_evaluator, evaluator.subject(facts.weights_sha256), supernet, how)
    return evaluator, facts


def _same_evaluator(subject: Mapping[str, object], supernet: Place, how: Mapping[str, Any]) -> Evaluator:
    """The evaluator of another process, opened in a worker.

    Raises:
        DataError: the supernet or the data of this host are other ones.
    """
    evaluator, facts = evaluator_of(supernet, **how)
    if (found := evaluator.subject(facts.weights_sha256)) != subject:
        differs = ", ".join(name for name in subject if found.get(name) != subject[name])
        raise DataError(
            f"on the host {platform.node()}, {supernet} or its data differ from those of the host that evaluates on "
            f"it ({differs}): copy them, or put them on a drive that all hosts share"
        )
    return evaluator


def trained_augmentation(facts: SupernetFacts) -> Augmentation:
    """The augmentation of a supernet's training; the usual one if its facts contain none, as after an import."""
    from hwnas.data import Augmentation

    found = facts.training.get("augmentation")
    return Augmentation.model_validate(found) if isinstance(found, dict) else Augmentation()


def check_folder(out: Path, what: str, *, goes_on: bool = False) -> None:
    """Check, before long work, that something may be written into a folder.

    Args:
        out: the folder.
        what: what will be written, for the message.
        goes_on: whether a training resumes from a checkpoint in the folder.

    Raises:
        OutputError: it is a file or a stage of a run, or contains a supernet, which would be lost.
    """
    from hwnas.supernet.store import FACTS
    from hwnas.training.checkpoint import CHECKPOINT

    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, but a {what} is a folder; choose another name")
    if is_stage(out):
        raise OutputError(
            f"{out} is a stage of a run, to which only its `hwnas compile` may write; choose another folder"
        )
    if (out / FACTS).exists() and not (goes_on and (out / CHECKPOINT).exists()):
        raise OutputError(f"{out} already contains a supernet; choose another folder, or delete this one")


def evaluations_folder(supernet: Path) -> Path:
    """The folder for evaluations of a supernet: its own folder, if it is writable.

    For a stage of a run, to which only the run may write, and for a folder that is not writable, it is ``evaluations``
    in `hwnas.targets.home`. File names contain the hash of the weights, so supernets share that folder without
    conflicts, and the evaluations of a moved supernet are found.
    """
    from hwnas.targets import home

    return home() / "evaluations" if is_stage(supernet) or not os.access(supernet, os.W_OK) else supernet


def is_stage(folder: Path) -> bool:
    """Whether a folder is a stage of a run: only the run may write to it."""
    return (folder / STAGE_INPUTS).is_file()
