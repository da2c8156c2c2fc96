"""`hwnas data`: check image data before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output
from hwnas.shown_progress import shown_progress

app = typer.Typer(help="Check image data before they are used.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Keep `check` a verb of its own, although it is the only one."""


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder of images.", metavar="PATH", show_default=False)],
    channels: options.DataChannels = None,
    split: options.DataSplit = None,
    seed: Annotated[int | None, typer.Option(help="Determines the split of --split.", min=0)] = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="List bad images, and end with exit code 0: training leaves them out.")
    ] = False,
    data_options: options.DataOptionsFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Decode all images, and list every file that is bad, ignored, or in several splits.

    Exit code 2 if an image cannot be read.
    """
    from hwnas import workflows

    how = options.data_options(data_options, channels, split, labels, skip_bad, seed, multi_label=multi_label)
    with shown_progress() as progress:
        found = workflows.check_data(path, data_options=how, progress=progress)
    if as_json:
        output.print_json(found.document())
    else:
        for line in found.check.lines():
            typer.echo(line)
        sizes = ", ".join(f"{name} {size}" for name, size in found.sizes.items())
        typer.echo(
            f"{found.check.images} images ({sizes}), {len(found.classes)} classes, {found.channels} "
            f"channel{'' if found.channels == 1 else 's'}: {len(found.check.bad)} bad, {len(found.check.ignored)} "
            f"ignored, {len(found.check.duplicates)} in several splits"
        )
    if found.check.bad and not skip_bad:
        typer.echo(
            "error: repair or remove the bad images, or leave them out with --skip-bad (skip_bad = true in a job)",
            err=True,
        )
        raise typer.Exit(2)
