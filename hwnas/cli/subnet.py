"""`hwnas subnet`: networks out of a trained supernet.

An extracted network is stored as the supernet of a space with this one arch, so every verb that takes a supernet takes
it as well.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress
from hwnas.workflows import inputs

if TYPE_CHECKING:
    from hwnas.accuracy import Evaluator
    from hwnas.supernet import Supernet, SupernetFacts

app = typer.Typer(help="Networks out of a trained supernet.", no_args_is_help=True)

ArchFile = Annotated[Path, typer.Argument(help="File that `hwnas search` wrote, or your own.", metavar="ARCH")]
From = Annotated[Path, typer.Option(help="Folder that `hwnas train` or `hwnas supernet import` wrote.")]
Calibration = Annotated[int, typer.Option(help="Training images for BN re-calibration.", min=2)]
EPOCHS = 3  # of fine-tuning without a training config


@app.command()
def extract(
    arch: ArchFile,
    supernet: From,
    out: Annotated[Path, typer.Option(help="Folder for the subnet.")],
    calibration_images: Calibration = 2000,
    as_json: options.AsJson = False,
) -> None:
    """Take a network out of a supernet, its BN re-calibrated."""
    from hwnas.supernet import save_supernet, single

    inputs.check_folder(out, "subnet")
    net, facts, evaluator = _opened(supernet, None, calibration_images)
    chosen = net.space.arch(inputs.read_arch(arch)[0])
    with shown_progress() as progress:
        subnet = single(net.space, chosen, evaluator.subnet(chosen, progress=progress))
    save_supernet(
        subnet,
        out,
        data=facts.data,
        classes=tuple(facts.classes),
        training={"extracted_from": facts.weights_sha256, "calibration_images": evaluator.calibration_images},
    )
    params = int(net.space.params(net.space.encode([chosen]))[0])
    if as_json:
        options.print_json({"arch": dict(chosen), "params": params, "subnet": str(out)})
    else:
        typer.echo(f"{params:,} parameters: {out}")


@app.command("eval")
def evaluate(
    supernet: From,
    archs: Annotated[list[Path] | None, typer.Argument(help="Files that `hwnas search` wrote.", metavar="ARCH")] = None,
    random: Annotated[int, typer.Option(help="So many random networks beside.", min=0)] = 0,
    images: Annotated[int | None, typer.Option(help="Validation images; all if left out.", min=1)] = None,
    calibration_images: Calibration = 2000,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Accuracies of networks with the weights that they inherit, several in one pass over the images.

    What was evaluated before is not evaluated again. Without an arch, the smallest and the largest are evaluated.
    """
    net, facts, evaluator = _opened(supernet, images, calibration_images)
    space = net.space
    chosen = {str(path): space.arch(inputs.read_arch(path)[0]) for path in archs or []}
    if not chosen and not random:
        chosen = (
            {"smallest": space.smallest, "largest": space.largest}
            if space.size > 1
            else {"the only network": space.largest}
        )
    chosen |= {f"random {i}": arch for i, arch in enumerate(space.decode(space.sample(random, seed=seed)))}
    with (
        shown_progress() as progress,
        evaluator.journal(inputs.evaluations_folder(supernet), facts.weights_sha256) as journal,
    ):
        found = evaluator.accuracies(list(chosen.values()), journal, what="evaluating subnets", progress=progress)
    if as_json:
        answers = [
            {"name": name, "arch": dict(arch), "validation_accuracy": accuracy}
            for (name, arch), accuracy in zip(chosen.items(), found, strict=True)
        ]
        options.print_json(answers)
        return
    for name, accuracy in zip(chosen, found, strict=True):
        typer.echo(f"{accuracy:.2%}  {name}")


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
    from hwnas.cli.train import run
    from hwnas.errors import InvalidValue
    from hwnas.supernet import Phase, TrainConfig, load_supernet, read_training

    net, facts = load_supernet(subnet)
    if net.space.size > 1:
        raise InvalidValue(f"{subnet} holds {net.space.size} networks; take one out with: hwnas subnet extract")
    data = inputs.reopen_data(facts)
    usual = TrainConfig(phases=[Phase(name="finetune", steps=1, learning_rate=0.01)])
    config = read_training(training) if training else usual
    if epochs or not training:
        config = config.lasting(math.ceil((epochs or EPOCHS) * data.size("train") / config.batch_size))
    fabric = options.launched(accelerator, devices, precision)
    run(
        net,
        data,
        config,
        fabric,
        out,
        seed=seed,
        data_facts=facts.data,
        teacher=teacher,
        resume=resume,
        started_from=facts,
    )
    if not fabric.is_global_zero:
        return
    if as_json:
        options.print_json({"steps": config.steps, "subnet": str(out)})
    else:
        typer.echo(f"fine-tuned for {config.steps} steps: {out}")


def _opened(supernet: Path, images: int | None, calibration_images: int) -> tuple[Supernet, SupernetFacts, Evaluator]:
    from hwnas.accuracy import Evaluator
    from hwnas.supernet import load_supernet

    net, facts = load_supernet(supernet)
    data = inputs.reopen_data(facts)
    return net, facts, Evaluator(net, data, images=images, calibration_images=calibration_images, seed=1)
