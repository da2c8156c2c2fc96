"""`hwnas study`: the best network within budgets, with each trained from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output
from hwnas.cli.networks import lines_of
from hwnas.shown_progress import INTERRUPTED, shown_progress, stopped_by_ctrl_c

ARCH, STORAGE = "arch.json", "study.journal"


def study(
    space: options.SpaceName,
    data: options.DataName,
    budget: options.Budgets,
    out: Annotated[Path, typer.Option(help="Folder for the best network, its weights and the study.")],
    target: Annotated[
        str | None,
        typer.Option(help="Target of a budget without a name; 'this' is the present host.", metavar="DEVICE/RECIPE"),
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
    trials: Annotated[int, typer.Option(help="Total number of networks to train, by all workers.", min=1)] = 50,
    training: options.Training = None,
    steps: Annotated[int | None, typer.Option(help="Updates per training, instead of the config's.", min=1)] = None,
    epochs: Annotated[
        int, typer.Option(help="Equal parts of a training, after each of which it may be pruned.", min=1)
    ] = 9,
    sampler: Annotated[str, typer.Option(help="tpe, gp or random.")] = "tpe",
    storage: Annotated[
        str | None,
        typer.Option(
            help="Shared storage of the workers: a .log or .journal file or the URL of a database; by default "
            f"{STORAGE} in the folder."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the study in its storage.")] = "study",
    images: options.Images = 2000,
    metric: options.Metric = None,
    positive: options.Positive = None,
    confidence: options.Confidence = None,
    no_margin: options.NoMargin = False,
    accelerator: options.Accelerator = "auto",
    precision: options.TrainingPrecision = "32-true",
    tables: options.Tables = None,
    engine: options.EngineName = "serial",
    workers: options.Workers = None,
    address: options.Address = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Train networks from scratch, one after the other, each proposed by a sampler that learns from earlier ones.

    The same command resumes a killed study; run in parallel, on this or another machine, it adds a worker. Ctrl-C ends
    it with the best network so far.
    """
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.study(
            options.space_with(space, resolution, width, kernel_sizes, expansions, aspect),
            data,
            out,
            budget=budget,
            target=target,
            data_path=data_path,
            data_options=options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label),
            fix=options.choices(fix),
            trials=trials,
            training=training,
            steps=steps,
            epochs=epochs,
            sampler=sampler,
            storage=storage,
            name=name,
            images=images,
            metric=metric,
            positive=positive,
            confidence=options.held_confidence(confidence, no_margin),
            accelerator=accelerator,
            precision=precision,
            tables=tables,
            engine=options.engine(engine, workers, address),
            seed=seed,
            progress=progress,
            stopping=stopped_by_ctrl_c,
        )
    here = answer.supernet is not None
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo("\n".join(lines_of(answer, out / ARCH, out if here else None, tables)))
        if not here:
            typer.echo(
                "Its weights are in the --out of the worker that trained it, or were deleted; `hwnas train` with its "
                "values as --fix trains them again"
            )
    if answer.stopped:
        raise typer.Exit(INTERRUPTED)
