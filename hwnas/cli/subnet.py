"""`hwnas subnet`: networks out of a trained supernet.

An extracted network is stored as the supernet of a space with this one arch, so every verb that takes a supernet takes
it as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress

app = typer.Typer(help="Networks out of a trained supernet.", no_args_is_help=True)

ArchFile = Annotated[Path, typer.Argument(help="File that `hwnas search` wrote, or your own.", metavar="ARCH")]
From = Annotated[Path, typer.Option(help="Folder that `hwnas train` or `hwnas supernet import` wrote.")]
EPOCHS = 3  # of fine-tuning without a training config


@app.command()
def extract(
    arch: ArchFile,
    supernet: From,
    out: Annotated[Path, typer.Option(help="Folder for the subnet.")],
    calibration_images: options.Calibration = 2000,
    as_json: options.AsJson = False,
) -> None:
    """Take a network out of a supernet, its BN re-calibrated."""
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.extract_subnet(arch, supernet, out, calibration_images=calibration_images, progress=progress)
    if as_json:
        options.print_json(answer.document())
    else:
        typer.echo(f"{answer.params:,} parameters: {answer.subnet}")


@app.command("eval")
def evaluate(
    supernet: From,
    archs: Annotated[list[Path] | None, typer.Argument(help="Files that `hwnas search` wrote.", metavar="ARCH")] = None,
    random: Annotated[int, typer.Option(help="Number of random networks to evaluate as well.", min=0)] = 0,
    images: Annotated[int | None, typer.Option(help="Validation images; all if left out.", min=1)] = None,
    calibration_images: options.Calibration = 2000,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Accuracies of networks with the weights that they inherit, several in one pass over the images.

    What was evaluated before is not evaluated again. Without an arch, the smallest and the largest are evaluated.
    """
    from hwnas import workflows

    with shown_progress() as progress:
        answers = workflows.evaluate_subnets(
            supernet,
            archs or [],
            random=random,
            images=images,
            calibration_images=calibration_images,
            seed=seed,
            progress=progress,
        )
    if as_json:
        options.print_json([answer.document() for answer in answers])
        return
    for answer in answers:
        typer.echo(f"{answer.validation_accuracy:.2%}  {answer.name}")


@app.command()
def finetune(
    subnet: Annotated[Path, typer.Option(help="Folder that `hwnas subnet extract` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the fine-tuned subnet.")],
    training: options.Training = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help=f"Passes over the training images, in place of the config's steps; {EPOCHS} without one.", min=1
        ),
    ] = None,
    teacher: options.Teacher = None,
    accelerator: options.Accelerator = "auto",
    devices: options.Devices = 1,
    precision: options.TrainingPrecision = "32-true",
    resume: options.Resume = True,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Train an extracted network on its own for a while."""
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.finetune(
            subnet,
            out,
            training=training,
            epochs=epochs,
            teacher=teacher,
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            resume=resume,
            seed=seed,
            progress=progress,
        )
    if as_json:
        options.print_json(answer.document())
    else:
        typer.echo(f"fine-tuned for {answer.steps} steps: {out}")
