"""`hwnas deploy`: a network under the recipes of a device."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress
from hwnas.workflows import inputs

if TYPE_CHECKING:
    from hwnas.deploy.sweep import Sweep, Swept
    from hwnas.latency import LatencyModel
    from hwnas.spaces import Space
    from hwnas.targets import Target

app = typer.Typer(help="A network under the recipes of a device.", no_args_is_help=True)

MAX_DROP = 0.5  # points of accuracy


@app.command()
def sweep(
    arch: Annotated[Path, typer.Argument(help="File that `hwnas search` wrote, or your own.", metavar="ARCH")],
    supernet: Annotated[Path, typer.Option(help="Folder that `hwnas train` wrote.")],
    device: Annotated[str, typer.Option(help="Name of the device, which is this host; 'this' finds it.")] = "this",
    max_drop: Annotated[
        float, typer.Option(help="Points of accuracy that may be lost against torch.", min=0, max=100)
    ] = MAX_DROP,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Only this recipe, in place of all of the device's. May be repeated.")
    ] = None,
    images: options.Images = 2000,
    tables: options.Tables = None,
    as_json: options.AsJson = False,
) -> None:
    """Lower, check and time one network under every recipe of this host, and pick the fastest that loses little.

    Accuracy is that of the program in its runtime, on validation images. A killed run resumes. Exit code 1
    if every recipe loses more than it may.
    """
    from hwnas.accuracy import Evaluator
    from hwnas.deploy.sweep import sweep as sweep_recipes
    from hwnas.files import only_one
    from hwnas.supernet import load_supernet
    from hwnas.targets import resolve_target, targets_of

    targets = [resolve_target(f"{device}/{name}") for name in dict.fromkeys(recipe)] if recipe else targets_of(device)
    net, facts = load_supernet(supernet)
    chosen = net.space.arch(inputs.read_arch(arch)[0])
    evaluator = Evaluator(net, inputs.reopen_data(facts), images=images, seed=1)  # the network that export makes
    place = inputs.evaluations_folder(supernet)
    with (
        # Two supernets that are stages share the place, and may be swept at once.
        only_one(place / f".{facts.weights_sha256[:16]}.sweep.lock", f"a sweep of {supernet}"),
        shown_progress() as progress,
        evaluator.journal(place, facts.weights_sha256) as journal,
    ):
        swept = sweep_recipes(
            chosen,
            evaluator,
            targets,
            journal,
            max_drop=max_drop / 100,
            latencies=_latencies(targets, tables, net.space),
            progress=progress,
        )
    picked = swept.picked
    if as_json:
        document = {
            "arch": dict(chosen),
            "device": swept.recipes[0].target.device.name,
            "max_drop": swept.max_drop,
            "picked": picked.target.name if picked else None,
            "recipes": [_entry(one) for one in swept.recipes],
            "left_out": dict(swept.left_out),
        }
        options.print_json(document)
    else:
        _print_table(swept)
        if picked:
            export = ["hwnas", "export", str(arch), "--supernet", str(supernet), "--target", picked.target.name]
            export += ["--tables", str(tables)] if tables else []
            typer.echo(
                f"picked: {picked.target.recipe.name}, the fastest that loses at most {max_drop:g} points. Export it "
                f"with: {shlex.join(export)} --out bundle"
            )
        else:
            least = min(swept.recipes, key=lambda one: one.lost)
            typer.echo(
                f"picked: none; every recipe loses more than {max_drop:g} points, {least.target.recipe.name} the "
                f"least, {least.lost * 100:.2f}"
            )
        for one in swept.recipes:
            if one.too_noisy:
                within = "within a round already" if one.unsteady else f"the two rounds differ by {one.repeat:.1%}"
                typer.echo(
                    f"warning: the machine was too noisy for {one.target.recipe.name}: {within}. Do not trust its "
                    "latency; make the machine quiet and sweep again",
                    err=True,
                )
    if not picked:
        raise typer.Exit(1)


def _latencies(targets: list[Target], tables: Path | None, space: Space) -> dict[str, LatencyModel]:
    """The latency model of each target that has a table of the space.

    Raises:
        TableError: there is no such folder of tables.
    """
    from hwnas.errors import SpecError, TableCorrupt, TableError, TableMismatch

    if tables and not tables.is_dir():
        raise TableError(f"{tables} is no folder of latency tables; `hwnas profile --tables {tables}` makes one")
    found = {}
    for target in targets:
        try:
            found[target.name] = inputs.latency_model(target, tables, space)
        except (SpecError, TableCorrupt, TableMismatch) as error:
            typer.echo(f"warning: no prediction for {target.name}: {error}", err=True)
        except TableError:  # no table of this recipe: its figures stand without a prediction
            continue
    return found


def _entry(one: Swept) -> dict[str, Any]:
    return {
        "target": one.target.name,
        "latency_ms": one.latency_ms,
        "rounds_ms": list(one.rounds_ms),
        "repeat": one.repeat,
        "too_noisy": one.too_noisy,
        "predicted_ms": one.predicted_ms,
        "accuracy": one.parity.deployed_accuracy,
        "lost": one.lost,
        "size_bytes": one.size_bytes,
        "parity": one.parity.model_dump(),
    }


def _print_table(swept: Sweep) -> None:
    from rich.console import Console
    from rich.table import Table

    first = swept.recipes[0]
    images, accuracy = first.parity.images, first.parity.torch_accuracy
    typer.echo(f"{first.target.device.name}: {accuracy:.2%} in torch on {images} validation images")
    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    columns = ("ms", "repeat", "predicted", "accuracy", "points lost", "bytes", "max error", "min cosine", "same class")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for one in swept.recipes:
        predicted, parity = one.predicted_ms, one.parity
        table.add_row(
            one.target.recipe.name,
            f"{one.latency_ms:.4f}",
            f"{one.repeat:.1%}",
            "no table" if predicted is None else f"{predicted:.4f}",
            f"{parity.deployed_accuracy:.2%}",
            f"{one.lost * 100:.2f}",
            f"{one.size_bytes:,}",
            f"{parity.max_abs_error:.2g}",
            f"{parity.min_cosine:.5f}",
            f"{parity.top1_agreement:.2%}",
        )
    # Wider than a narrow terminal if need be: a figure that is cut off is worse than a line that wraps.
    Console(width=max(Console().width, 130)).print(table)
    for name, why in swept.left_out.items():
        typer.echo(f"left out: {name}: {why}")
