"""`hwnas supernet`: import published supernets, and adapt them to other data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output

app = typer.Typer(help="Import published supernets, and adapt them to other data.", no_args_is_help=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Checkpoint, e.g. ofa_mbv3_d234_e346_k357_w1.0.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    format_: Annotated[str, typer.Option("--format", help="ofa: a published checkpoint of once-for-all.")] = "ofa",
    space: Annotated[
        str | None, typer.Option(help="Space of the supernet; by default inferred from its tensors.")
    ] = None,
    data_path: Annotated[
        Path | None, typer.Option(help="ImageNet as an image folder, for BN re-calibration and evaluation.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Read a published supernet. Only tensors are unpickled, and every name and shape is checked."""
    from hwnas import workflows

    answer = workflows.import_supernet(file, out, file_format=format_, space=space, data_path=data_path)
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo(f"{answer.tensors} tensors of {answer.space}: {answer.supernet}")


@app.command()
def adapt(
    supernet: Annotated[Path, typer.Argument(help="Folder of the supernet.", metavar="SUPERNET")],
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet of the new data.")],
    data_path: options.DataPath = None,
    channels: options.DataChannels = None,
    split: options.DataSplit = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    skip_bad: options.SkipBad = False,
    data_options: options.DataOptionsFile = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Write a supernet for other data: with a new last layer, if they have other classes.

    `hwnas train --init` trains it further.
    """
    from hwnas import workflows

    answer = workflows.adapt_supernet(
        supernet,
        data,
        out,
        data_path=data_path,
        data_options=options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label),
        seed=seed,
    )
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo(f"{answer.tensors} tensors kept, {len(answer.new_tensors)} new: {answer.supernet}")
