"""`hwnas deploy`: compare a network under the recipes of a device."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import models, options, output
from hwnas.cli.help import Verb
from hwnas.errors import TooNoisy
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.workflows import SweepAnswer

app = typer.Typer(help="Compare a network under the recipes of a device.", no_args_is_help=True)

MAX_DROP = 0.5  # points of accuracy


@app.command(cls=Verb)
def sweep(
    arch: options.ArchOrModel,
    supernet: options.SupernetOfArch = None,
    device: Annotated[str, typer.Option(help="Device, which must be this host; 'this' detects it.")] = "this",
    max_drop: Annotated[
        float, typer.Option(help="Largest accuracy loss relative to torch, in points.", min=0, max=100)
    ] = MAX_DROP,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Only this recipe instead of all of the device. May be repeated.")
    ] = None,
    images: options.Images = 2000,
    metric: options.DeployedMetric = None,
    positive: options.Positive = None,
    data_path: options.MovedData = None,
    tables: options.Tables = None,
    engine: options.EngineName = "serial",
    workers: options.Workers = None,
    address: options.Address = None,
    shape: options.Shape = None,
    inputs: options.Inputs = None,
    weights: options.ModelWeights = None,
    out: options.ModelRun = None,
    as_json: options.AsJson = False,
) -> None:
    """Lower, check and time a network under every recipe of this host, and pick the fastest of small accuracy loss.

    Accuracy is measured in the recipe's runtime on validation images. A killed run resumes. Exit code 1 if the
    accuracy loss of every recipe is too large, or its outputs differ more than its [parity] accepts. The outputs of a
    model are compared with those of its graph in fp32, on --inputs.
    """
    from hwnas import workflows

    if models.is_model(arch):
        models.not_for_models(
            {
                "--supernet": supernet,
                "--data-path": data_path,
                "--tables": tables,
                "--positive": positive,
                "--engine": engine != "serial",
            }
        )
        picked = models.sweep_model(
            arch, device, recipe or [], max_drop / 100, shape, inputs, weights, metric=metric, out=out, as_json=as_json
        )
        if not picked:
            raise typer.Exit(1)
        return
    models.only_for_models(arch, shape, inputs, weights, out)
    supernet = models.required_supernet(supernet, arch)
    with shown_progress() as progress:
        answer = workflows.sweep(
            arch,
            supernet,
            device=device,
            recipes=recipe or (),
            max_drop=max_drop / 100,
            images=images,
            metric=metric,
            positive=positive,
            data_path=data_path,
            tables=tables,
            engine=options.engine(engine, workers, address),
            progress=progress,
        )
    for name, why in answer.unpredicted.items():
        typer.echo(f"warning: no prediction for {name}: {why}", err=True)
    if as_json:
        output.print_json(answer.document())
    else:
        _print_table(answer)
        if answer.picked:
            export = ["hwnas", "export", str(arch), "--supernet", str(supernet), "--target", answer.picked]
            export += ["--tables", str(tables)] if tables else []
            export += ["--data-path", str(data_path)] if data_path else []
            export += output.metric_words(answer.recipes[0].parity.figures)
            typer.echo(
                f"picked: {_recipe(answer.picked)}, the fastest that loses at most {max_drop:g} points. Export it "
                f"with: {shlex.join(export)} --out bundle"
            )
        elif accepted := [one for one in answer.recipes if one.refused is None]:
            least = min(accepted, key=lambda one: one.lost)
            typer.echo(
                f"picked: none; every recipe {'that is not refused ' if len(accepted) < len(answer.recipes) else ''}"
                f"loses more than {max_drop:g} points, {_recipe(least.target)} the least, {least.lost * 100:.2f}"
            )
        else:
            typer.echo("picked: none; every recipe is refused")
    noisy = [
        f"{_recipe(one.target)}: "
        + ("runs of one round differ too much" if one.unsteady else f"the two rounds differ by {one.repeat:.1%}")
        for one in answer.recipes
        if one.too_noisy and one.refused is None  # a refused recipe cannot be picked
    ]
    if noisy:
        raise TooNoisy(
            f"the machine was too noisy for {'; '.join(noisy)}. These latencies cannot be trusted, nor can the pick: "
            "close other programs, and run the same command again: it repeats what was too noisy"
        )
    if not answer.picked:
        raise typer.Exit(1)


def _recipe(target: str) -> str:
    return target.partition("/")[2]


def _print_table(answer: SweepAnswer) -> None:
    from rich.console import Console
    from rich.table import Table

    from hwnas.tasks.figures import metric_suffix, same_answer

    first = answer.recipes[0]
    images, accuracy = first.parity.images, first.parity.torch_accuracy
    of = metric_suffix(first.parity.metric)
    typer.echo(f"{answer.device}: {accuracy:.2%}{of} in torch on {images} validation images")
    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    columns = (
        *("ms", "repeat", "predicted", "accuracy" if not of else "metric", "points lost", "noise"),
        *("bytes", "max error", "min cosine", same_answer(first.parity.figures)),
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in answer.recipes:
        predicted, parity = one.predicted_ms, one.parity
        table.add_row(
            _recipe(one.target) + (" (refused)" if one.refused else ""),
            f"{one.latency_ms:.4f}",
            f"{one.repeat:.1%}",
            "no table" if predicted is None else f"{predicted:.4f}",
            f"{parity.deployed_accuracy:.2%}",
            f"{one.lost * 100:.2f}",
            "" if parity.difference is None or parity.difference.distinguishable else "within",
            f"{one.size_bytes:,}",
            f"{parity.max_abs_error:.2g}",
            f"{parity.min_cosine:.5f}",
            f"{parity.top1_agreement:.2%}",
        )
    # Possibly wider than the terminal: wrapped lines are better than truncated figures.
    Console(width=max(Console().width, 130)).print(table)
    for one in answer.recipes:
        if one.refused:
            typer.echo(f"refused: {one.target}: {one.refused}")
    for name, why in answer.left_out.items():
        typer.echo(f"left out: {name}: {why}")
