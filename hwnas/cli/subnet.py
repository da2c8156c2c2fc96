"""`hwnas subnet`: networks of a trained supernet.

An extracted network is stored as the supernet of a space with a single arch, so every verb for supernets accepts it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output
from hwnas.cli.help import Verb
from hwnas.shown_progress import shown_progress

app = typer.Typer(help="Extract, evaluate and fine-tune networks of a trained supernet.", no_args_is_help=True)

From = Annotated[Path, typer.Option(help="Folder from `hwnas train` or `hwnas supernet import`.")]
EPOCHS = 3  # epochs of fine-tuning without a training config


@app.command()
def extract(
    arch: options.Arch,
    supernet: From,
    out: Annotated[Path, typer.Option(help="Folder for the subnet.")],
    data_path: options.MovedData = None,
    calibration_images: options.Calibration = 2000,
    as_json: options.AsJson = False,
) -> None:
    """Extract a network from a supernet and re-calibrate its BN."""
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.extract_subnet(
            arch, supernet, out, data_path=data_path, calibration_images=calibration_images, progress=progress
        )
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo(f"{answer.params:,} parameters: {answer.subnet}")


@app.command("eval", cls=Verb)
def evaluate(
    supernet: From,
    archs: Annotated[list[Path] | None, typer.Argument(help=options.ARCH, metavar="ARCH")] = None,
    random: Annotated[int, typer.Option(help="Number of additional random networks.", min=0)] = 0,
    images: Annotated[int | None, typer.Option(help="Validation images; by default all.", min=1)] = None,
    data_path: options.MovedData = None,
    calibration_images: options.Calibration = 2000,
    metric: options.Metric = None,
    positive: options.Positive = None,
    engine: options.EngineName = "serial",
    workers: options.Workers = None,
    address: options.Address = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate networks with inherited weights, several in one pass over the images.

    Earlier results are reused. Without an arch, the smallest and the largest network are evaluated.
    """
    from hwnas import workflows

    with shown_progress() as progress:
        answers = workflows.evaluate_subnets(
            supernet,
            archs or [],
            data_path=data_path,
            random=random,
            images=images,
            calibration_images=calibration_images,
            metric=metric,
            positive=positive,
            engine=options.engine(engine, workers, address),
            seed=seed,
            progress=progress,
        )
    if as_json:
        output.print_json([answer.document() for answer in answers])
        return
    for answer in answers:
        typer.echo(f"{answer.validation_accuracy:.2%}  {answer.name}")
        if answer.figures:
            typer.echo(f"        {answer.figures.words}")


@app.command(cls=Verb)
def finetune(
    subnet: Annotated[Path, typer.Option(help="Folder from `hwnas subnet extract`.")],
    out: Annotated[Path, typer.Option(help="Folder for the fine-tuned subnet.")],
    data_path: options.MovedData = None,
    training: options.Training = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help=f"Passes over the training images, instead of the config's steps; {EPOCHS} without one.", min=1
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Train few parameters, and merge them into the weights: {methods}. By default all weights."),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Of the changes that --method makes.  [default: 8]", min=1)] = None,
    metric: options.TrainingMetric = None,
    positive: options.Positive = None,
    teacher: options.Teacher = None,
    accelerator: options.Accelerator = "auto",
    devices: options.Devices = 1,
    precision: options.TrainingPrecision = "32-true",
    resume: options.Resume = True,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fine-tune an extracted network."""
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.finetune(
            subnet,
            out,
            data_path=data_path,
            training=training,
            epochs=epochs,
            method=method,
            rank=rank,
            metric=metric,
            positive=positive,
            teacher=teacher,
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            resume=resume,
            seed=seed,
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo(f"fine-tuned for {answer.steps} steps: {out}")
        if answer.adapted:
            typer.echo(output.adapted_words(answer.adapted))
        output.echo_validation(answer)
