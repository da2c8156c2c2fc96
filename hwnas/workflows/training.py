"""Train a supernet."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import InvalidValue, some
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.adapting import started_from
from hwnas.workflows.answers import TrainAnswer
from hwnas.workflows.arch_files import chosen_arch
from hwnas.workflows.inputs import Fix, Place
from hwnas.workflows.processes import launched

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import nn

    from hwnas.data import Data, DataOptions
    from hwnas.spaces import Space, Value
    from hwnas.supernet import Supernet, SupernetFacts, TrainConfig
    from hwnas.training.alone import Processes
    from hwnas.training.launchers import Nodes
    from hwnas.training.validation import History

log = logging.getLogger(__name__)


def train(
    space: str | Space | None,
    data: str | Data,
    out: Place,
    *,
    init: Place | None = None,
    data_path: Place | None = None,
    data_options: DataOptions | None = None,
    fix: Fix | None = None,
    arch: Place | Mapping[str, Value] | None = None,
    training: Place | TrainConfig | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    metric: str | None = None,
    positive: str | None = None,
    teacher: Place | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    nodes: Nodes | None = None,
    precision: str = "32-true",
    resume: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> TrainAnswer:
    """Train one set of weights for every network of a space; a killed training resumes from its last checkpoint.

    Args:
        space: search space or its name; None with `init`.
        data: dataset or its name.
        out: folder for the supernet.
        init: folder of a supernet whose space and weights are the start, such as one of `elastic`.
        data_path: folder of a dataset that is read from disk.
        data_options: how its images are read: channels, transform, layout.
        fix: variable -> the value or values that remain.
        arch: file or values of a single network to train instead of all.
        training: training config, or its TOML file.
        steps: total updates, instead of the config's.
        batch_size: images per update, instead of the config's.
        metric: what validations measure (`hwnas.tasks.parse_metric`); by default top1, or mAP for several labels.
        positive: class of the metric.
        teacher: folder of a trained supernet whose largest network is an additional teacher.
        accelerator: auto, cpu or cuda.
        devices: total number of processes, one per device. The others run the same command; this call ends them.
        nodes: hosts that train together, each with the same call; None for this one alone.
        precision: 32-true or bf16-mixed.
        resume: resume from the folder's checkpoint.
        seed: random seed.
        progress: callback, invoked after every update.

    Raises:
        InvalidValue, UnknownName: a name or a value is unknown or invalid.
        DataError, SpecError: the data or a file cannot be read.
        OutputError: the folder is a file or contains a supernet, or cannot be written.
        CheckpointError, TrainingDiverged, OutOfMemory, ProcessLost: as `hwnas.train`.
        SystemExit: in every process but the first, when the training is finished.
    """
    from hwnas.supernet import Supernet

    out = Path(out)
    images, facts = inputs.data_of(data, data_path, data_options)
    started: SupernetFacts | None = None
    new: list[str] = []
    if init is not None:
        supernet, started, new = started_from(init, space, images, restricted=bool(fix) or arch is not None, seed=seed)
        chosen = supernet.space
    elif space is None:
        raise InvalidValue("--space is missing (hwnas spaces list); or --init, a supernet to start from")
    else:
        chosen = inputs.space_for(space, images, fix)
        if arch is not None:
            chosen = chosen.fix(**chosen_arch(chosen, arch)[0])
    config = config_of(training, space=chosen, steps=steps, batch_size=batch_size)
    fabric = launched(accelerator, devices, precision, config=config, nodes=nodes)
    if init is None:
        supernet = Supernet(chosen, seed=seed)
    with alone_in(out, fabric):
        history = train_into(
            out,
            supernet,
            images,
            config,
            fabric,
            seed=seed,
            data_facts=facts,
            metric=metric,
            positive=positive,
            teacher=Path(teacher) if teacher else None,
            resume=resume,
            started_from=started,
            progress=progress,
        )
    return TrainAnswer(
        space=chosen.name,
        data=images.name,
        supernet=str(out),
        new_tensors=new,
        **outcome(config, history, images, metric),
    )


def outcome(config: TrainConfig, history: History, data: Data, metric: str | None) -> dict[str, Any]:
    """Fields of an answer: updates, the validation of the kept weights, and why the training ended earlier."""
    from hwnas.tasks import task_of

    last = history.found[-1:]
    kept = history.best if config.patience else (last[0] if last else None)
    return {
        "steps": last[0].step if history.stopped else config.steps,
        "metric": metric or task_of(data.task).metric,
        "validation": kept._asdict() if kept else None,
        "stopped": history.stopped,
        "adapted": dict(history.adapted),
    }


def config_of(
    training: Place | TrainConfig | None,
    *,
    space: Space | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
) -> TrainConfig:
    """A training config, from its file or itself, with other numbers of updates or images.

    Without one, it is the usual one of the space (`hwnas.supernet.usual_training`).

    Raises:
        SpecError: the file cannot be read, or has a wrong or unknown key.
        InvalidValue: fewer updates than phases.
    """
    from hwnas.supernet import TrainConfig, read_training, usual_training

    if isinstance(training, str | Path):
        config = read_training(Path(training))
    else:
        config = training or (usual_training(space) if space else TrainConfig())
    config = config.lasting(steps) if steps else config
    return config.model_copy(update={"batch_size": batch_size}) if batch_size else config


def train_into(
    folder: Path,
    supernet: Supernet,
    data: Data,
    config: TrainConfig,
    fabric: Processes,
    *,
    seed: int,
    data_facts: Mapping[str, JsonValue],
    metric: str | None = None,
    positive: str | None = None,
    teacher: Path | None = None,
    resume: bool = True,
    started_from: SupernetFacts | None = None,
    progress: Progress = silent,
) -> History:
    """Train a supernet and write it into a folder.

    Args:
        folder: for the checkpoint, the metrics and the supernet.
        supernet: with its initial weights.
        data: its images.
        config: the training config.
        fabric: processes, devices and precision, launched.
        seed: of everything that is drawn.
        data_facts: name and path of the data, to open it again.
        metric: what validations measure (`hwnas.tasks.parse_metric`).
        positive: class of the metric.
        teacher: folder of a trained supernet whose largest network is an additional teacher.
        resume: resume from a checkpoint in the folder.
        started_from: description of the initial weights of a fine-tuning.
        progress: callback, invoked after every update; in the first process only.

    Returns:
        The validations. A warning is logged if they show that the network overfits.

    Raises:
        UnknownName, InvalidValue: no such metric or class.
        OutputError: the folder cannot be written.
        SystemExit: in every process but the first, when the training is finished.
    """
    from hwnas.accuracy import Validation
    from hwnas.data.augment import calibration_augmentation
    from hwnas.supernet import save_supernet
    from hwnas.supernet import train as train_supernet
    from hwnas.tasks import parse_metric
    from hwnas.training.alone import precision_of

    facts: dict[str, JsonValue] = {
        **config.facts(seed),
        "precision": precision_of(fabric),
        "processes": fabric.world_size,
    }
    if started_from:
        facts["started_from"] = {
            "weights_sha256": started_from.weights_sha256,
            "training": started_from.training,
        }
    validation = Validation(
        data=data,
        images=config.validation_images,
        metric=parse_metric(metric, data.classes, positive, task=data.task),
        augmentation=calibration_augmentation(config.augmentation),
    )
    network = None
    if teacher:
        network, facts["teacher"] = _teacher(teacher, data, supernet.space)
        fabric.to_device(network)
    history = train_supernet(
        supernet,
        data,
        config,
        seed=seed,
        folder=folder,
        fabric=fabric,
        teacher=network,
        validator=validation,
        resume=resume,
        progress=progress if fabric.is_global_zero else silent,
    )
    if history.found:
        facts["validations"] = {"metric": validation.name, "rows": [v._asdict() for v in history.found]}
    if history.adapted:
        facts["adapted"] = dict(history.adapted)
    if fabric.is_global_zero:
        if overfit := history.overfit(min(config.validation_images, data.size("validation"))):
            log.warning("%s", overfit)
        save_supernet(supernet.cpu(), folder, data=data_facts, classes=data.classes, training=facts, task=data.task)
    fabric.barrier()
    if not fabric.is_global_zero:
        raise SystemExit(0)  # only the first process continues after the training
    return history


def alone_in(folder: Path, fabric: Processes) -> AbstractContextManager[None]:
    """A context that excludes other trainings in a folder; the first process holds its lock.

    Raises:
        OutputError: it is a file or a stage of a run, contains a supernet, or is in use by another process.
    """
    from hwnas.files import only_one

    inputs.check_folder(folder, "supernet", goes_on=True)
    return only_one(folder / ".lock", str(folder)) if fabric.is_global_zero else nullcontext()


def _teacher(folder: Path, data: Data, space: Space) -> tuple[nn.Module, str]:
    """The largest network of a supernet as a teacher for a training's images, and the hash of its weights.

    Raises:
        InvalidValue: it was trained on other classes, channels, aspects or resolutions.
    """
    from hwnas.accuracy import Evaluator
    from hwnas.data.augment import calibration_augmentation
    from hwnas.supernet import load_supernet

    supernet, facts = load_supernet(folder)
    theirs, size = supernet.space, space.reads.size
    if theirs.reads != data.reads or facts.classes != list(data.classes):
        raise InvalidValue(
            f"the teacher {folder} takes {theirs.reads.text} and has the classes {some(facts.classes)}; "
            f"{data.name} has {data.reads.text} and {some(data.classes)}"
        )
    if theirs.aspect != space.aspect:
        raise InvalidValue(
            f"the teacher {folder} was trained on images with the aspect {theirs.aspect} (width:height); this training "
            f"loads them with {space.aspect}: choose a matching teacher"
        )
    if facts.task != data.task:
        raise InvalidValue(f"the teacher {folder} was trained for {facts.task}, but {data.name} is for {data.task}")
    sizes, wanted = theirs.variable(size).values, space.largest[size]
    if wanted not in sizes:
        raise InvalidValue(
            f"the teacher {folder} was trained with the {size} {', '.join(map(str, sizes))}; this training loads its "
            f"data with {wanted}: choose a matching teacher, or --fix {size}={sizes[-1]}"
        )
    augmentation = calibration_augmentation(inputs.trained_augmentation(facts))
    evaluator = Evaluator(supernet, data, images=None, seed=1, augmentation=augmentation)
    return evaluator.subnet({**theirs.largest, size: wanted}), facts.weights_sha256
