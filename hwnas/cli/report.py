"""`hwnas report`: the page of a finished run, or of a model, and its plots as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options, output


def report(
    run: Annotated[
        Path,
        typer.Argument(
            help="Output folder of `hwnas compile`; or --out of bench, sweep and predict of a model.", metavar="RUN"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File for the page; by default report.html in the run.")] = None,
    png: Annotated[Path | None, typer.Option(help="Folder for a PNG of each plot; needs Chromium.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Draw the page of a finished run, or of a model, again: one HTML file that works offline."""
    from hwnas.files import write_whole
    from hwnas.report.page import PAGE
    from hwnas.report.pictures import write_pngs
    from hwnas.report.runs import page_and_plots

    path = out or run / PAGE
    page, plots = page_and_plots(run)
    pictures = write_pngs(plots(), png) if png else []
    write_whole(path, page())
    if as_json:
        output.print_json({"page": str(path), "pictures": [str(picture) for picture in pictures]})
    else:
        typer.echo(f"wrote {path}" + (f", and {len(pictures)} pictures to {png}" if png else ""))
