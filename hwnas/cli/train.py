"""`hwnas train`: train a supernet."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.progress import silent
from hwnas.shown_progress import shown_progress
from hwnas.workflows import inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning_fabric import Fabric
    from pydantic import JsonValue
    from torch import nn

    from hwnas.data import Data
    from hwnas.spaces import Space
    from hwnas.supernet import Supernet, SupernetFacts, TrainConfig


def train(
    space: options.SpaceName,
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    data_path: options.DataPath = None,
    fix: options.Fix = None,
    arch: Annotated[
        Path | None, typer.Option(help="File that `hwnas search` wrote: train this one network, from scratch.")
    ] = None,
    training: options.Training = None,
    steps: Annotated[int | None, typer.Option(help="Updates in all, in place of the config's.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an update, in place of the config's.", min=1)] = None,
    teacher: options.Teacher = None,
    accelerator: options.Accelerator = "auto",
    devices: options.Devices = 1,
    precision: options.TrainingPrecision = "32-true",
    resume: options.Resume = True,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Train one set of weights for every network of a space.

    A killed run goes on from its last checkpoint when the same command is given again.
    """
    from hwnas.data import open_data
    from hwnas.supernet import Supernet, TrainConfig, read_training

    images = open_data(data, path=data_path)
    chosen = inputs.fixed_space(space, fix, images.in_channels, len(images.classes))
    if arch:
        chosen = chosen.fix(**chosen.arch(inputs.read_arch(arch)[0]))
    config = read_training(training) if training else TrainConfig()
    config = config.lasting(steps) if steps else config
    config = config.model_copy(update={"batch_size": batch_size}) if batch_size else config
    fabric = options.launched(accelerator, devices, precision)
    facts = {"name": images.name, "path": str(data_path.absolute()) if data_path else None}
    supernet = Supernet(chosen, seed=seed)
    run(supernet, images, config, fabric, out, seed=seed, data_facts=facts, teacher=teacher, resume=resume)
    if not fabric.is_global_zero:
        return
    if as_json:
        options.print_json({"space": chosen.name, "data": data, "steps": config.steps, "supernet": str(out)})
    else:
        typer.echo(f"trained {chosen.name} on {data} for {config.steps} steps: {out}")


def run(
    supernet: Supernet,
    data: Data,
    config: TrainConfig,
    fabric: Fabric,
    out: Path,
    *,
    seed: int,
    data_facts: Mapping[str, str | int | None],
    teacher: Path | None,
    resume: bool,
    started_from: SupernetFacts | None = None,
) -> None:
    """Train, and write the supernet into a folder.

    Raises:
        OutputError: the folder is a file, or cannot be written.
    """
    from hwnas.files import only_one
    from hwnas.supernet import save_supernet
    from hwnas.supernet import train as train_supernet

    inputs.check_folder(out, "supernet", goes_on=True)
    facts: dict[str, JsonValue] = {
        **config.facts(seed),
        "precision": fabric.strategy.precision.precision,
        "processes": fabric.world_size,
    }
    if started_from:
        facts["started_from"] = {
            "weights_sha256": started_from.weights_sha256,
            "training": started_from.training,
        }
    network = None
    if teacher:
        network, facts["teacher"] = _teacher(teacher, data, supernet.space)
        fabric.to_device(network)
    with ExitStack() as stack:
        progress = silent
        if fabric.is_global_zero:
            stack.enter_context(only_one(out / ".lock", str(out)))
            progress = stack.enter_context(shown_progress())
        train_supernet(
            supernet,
            data,
            config,
            seed=seed,
            folder=out,
            fabric=fabric,
            teacher=network,
            resume=resume,
            progress=progress,
        )
        if fabric.is_global_zero:
            save_supernet(supernet.cpu(), out, data=data_facts, classes=data.classes, training=facts)
        fabric.barrier()


def _teacher(folder: Path, data: Data, space: Space) -> tuple[nn.Module, str]:
    """The largest network of a supernet, for the images that a training loads, and the hash of its weights.

    Raises:
        InvalidValue: it was trained on other classes, channels or resolutions.
    """
    from hwnas.accuracy import Evaluator
    from hwnas.errors import InvalidValue
    from hwnas.supernet import load_supernet

    supernet, facts = load_supernet(folder)
    theirs, side = supernet.space, space.largest["resolution"]
    if theirs.in_channels != data.in_channels or facts.classes != list(data.classes):
        raise InvalidValue(
            f"the teacher {folder} takes {theirs.in_channels} channels and knows {', '.join(facts.classes)}; "
            f"{data.name} has {data.in_channels} channels and {', '.join(data.classes)}"
        )
    sides = theirs.variable("resolution").values
    if side not in sides:
        raise InvalidValue(
            f"the teacher {folder} knows images of {', '.join(map(str, sides))} pixels; training loads them at "
            f"{side}: choose a teacher that knows these, or --fix resolution={sides[-1]}"
        )
    evaluator = Evaluator(supernet, data, images=None, seed=1)
    return evaluator.subnet({**theirs.largest, "resolution": side}), facts.weights_sha256
