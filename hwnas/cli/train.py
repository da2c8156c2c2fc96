"""`hwnas train`: train a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress
from hwnas.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning_fabric import Fabric

    from hwnas.data import Data
    from hwnas.supernet import Supernet, TrainConfig


def train(
    space: options.SpaceName,
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    data_path: options.DataPath = None,
    fix: options.Fix = None,
    recipe: options.TrainingRecipe = None,
    steps: Annotated[int | None, typer.Option(help="Updates in all, in place of the recipe's.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images an update, in place of the recipe's.", min=1)] = None,
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
    chosen = options.fixed_space(space, fix, images.in_channels, len(images.classes))
    config = read_training(recipe) if recipe else TrainConfig()
    config = config.lasting(steps) if steps else config
    config = config.model_copy(update={"batch_size": batch_size}) if batch_size else config
    fabric = options.launched(accelerator, devices, precision)
    facts = {"name": data, "path": str(data_path.absolute()) if data_path else None}
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
) -> None:
    """Train, and write the supernet into a folder.

    Raises:
        OutputError: the folder is a file, or cannot be written.
    """
    from hwnas.supernet import extract, load_supernet, save_supernet
    from hwnas.supernet import train as train_supernet
    from hwnas.supernet.checkpoint import CHECKPOINT

    options.check_folder(out, "supernet")
    if not resume and fabric.is_global_zero:
        (out / CHECKPOINT).unlink(missing_ok=True)
    fabric.barrier()
    taught = None
    if teacher:
        teaching, _ = load_supernet(teacher)
        taught = fabric.to_device(extract(teaching, teaching.space.largest))
    with shown_progress() as progress:
        train_supernet(
            supernet,
            data,
            config,
            seed=seed,
            folder=out,
            fabric=fabric,
            teacher=taught,
            progress=progress if fabric.is_global_zero else silent,
        )
    if fabric.is_global_zero:
        facts = config.facts(seed)
        save_supernet(supernet.cpu(), out, data=data_facts, classes=data.classes, training=facts)
    fabric.barrier()
