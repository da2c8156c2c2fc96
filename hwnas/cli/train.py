"""`hwnas train`: train a supernet."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress


def train(
    space: options.SpaceName,
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    data_path: options.DataPath = None,
    fix: options.Fix = None,
    steps: Annotated[int, typer.Option(help="Updates.", min=1)] = 1100,
    batch_size: Annotated[int, typer.Option(help="Images an update.", min=1)] = 64,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.2,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Train one set of weights for every network of a space.

    A killed run goes on from its last checkpoint.
    """
    from hwnas.data import open_data
    from hwnas.errors import InvalidValue, OutputError
    from hwnas.supernet import Supernet, TrainConfig, save_supernet
    from hwnas.supernet import train as run

    if not 0 < learning_rate < math.inf:
        raise InvalidValue(f"the learning rate must be a positive, finite number, not {learning_rate}")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file; a supernet is a folder, choose another name")
    images = open_data(data, path=data_path)
    chosen = options.fixed_space(space, fix, images.in_channels, len(images.classes))
    config = TrainConfig(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    supernet = Supernet(chosen, seed=seed)
    with shown_progress() as progress:
        run(supernet, images, config, seed=seed, folder=out, progress=progress)
    save_supernet(
        supernet,
        out,
        data={"name": data, "path": str(data_path.absolute()) if data_path else None},
        classes=images.classes,
        training={**config.model_dump(), "seed": seed},
    )
    if as_json:
        options.print_json({"space": chosen.name, "data": data, "steps": steps, "supernet": str(out)})
    else:
        typer.echo(f"trained {chosen.name} on {data} for {steps} steps: {out}")
