"""`hwnas export`: a subnet as a deployable bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress


def export(
    arch: Annotated[Path, typer.Argument(help="File from `hwnas search`, or your own.", metavar="ARCH")],
    supernet: Annotated[Path, typer.Option(help="Folder from `hwnas train`.")],
    target: options.Target,
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    data_path: options.MovedData = None,
    tables: options.Tables = None,
    as_json: options.AsJson = False,
) -> None:
    """Extract a subnet, lower it, check its parity on the test images, and write a bundle."""
    from hwnas import workflows

    with shown_progress() as progress:
        bundle = workflows.export(arch, supernet, target, out, tables=tables, data_path=data_path, progress=progress)
    manifest = bundle.manifest
    if as_json:
        options.print_json({"bundle": str(out), **manifest.model_dump(mode="json", by_alias=True)})
    else:
        typer.echo(
            f"{manifest.accuracy:.2%} on {manifest.parity.images} test images, largest difference of a logit "
            f"{manifest.parity.max_abs_error:.2e}, predicted {manifest.predicted_ms:.4g} ms: {out}"
        )
