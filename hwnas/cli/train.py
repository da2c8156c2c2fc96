"""`hwnas train`: train a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output
from hwnas.shown_progress import shown_progress


def train(
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    space: options.OptionalSpaceName = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Instead of --space: folder of a supernet to start from, such as one of `hwnas elastic`."),
    ] = None,
    data_path: options.DataPath = None,
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    channels: options.DataChannels = None,
    split: options.DataSplit = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    skip_bad: options.SkipBad = False,
    data_options: options.DataOptionsFile = None,
    fix: options.Fix = None,
    arch: Annotated[
        Path | None, typer.Option(help="File from `hwnas search`: train this network only, from scratch.")
    ] = None,
    training: options.Training = None,
    steps: Annotated[int | None, typer.Option(help="Total updates, instead of the config's.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per update, instead of the config's.", min=1)] = None,
    metric: options.TrainingMetric = None,
    positive: options.Positive = None,
    teacher: options.Teacher = None,
    accelerator: options.Accelerator = "auto",
    devices: options.Devices = 1,
    num_nodes: options.NumNodes = 1,
    node_rank: options.NodeRank = None,
    main_address: options.MainAddress = None,
    precision: options.TrainingPrecision = "32-true",
    resume: options.Resume = True,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Train one set of weights for every network of a space.

    After a kill, the same command resumes from the last checkpoint.
    """
    from hwnas import workflows
    from hwnas.training.launchers import Nodes

    with shown_progress() as progress:
        answer = workflows.train(
            options.space_or_none(space, resolution, width, kernel_sizes, expansions, aspect),
            data,
            out,
            init=init,
            data_path=data_path,
            data_options=options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label),
            fix=options.choices(fix),
            arch=arch,
            training=training,
            steps=steps,
            batch_size=batch_size,
            metric=metric,
            positive=positive,
            teacher=teacher,
            accelerator=accelerator,
            devices=devices,
            nodes=Nodes.of(num_nodes, node_rank, main_address),
            precision=precision,
            resume=resume,
            seed=seed,
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo(f"trained {answer.space} on {data} for {answer.steps} steps: {out}")
        output.echo_validation(answer)
        if answer.adapted:
            typer.echo(output.adapted_words(answer.adapted))
