"""`hwnas bench`: time a bundle again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress


def bench(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", metavar="BUNDLE")],
    as_json: options.AsJson = False,
) -> None:
    """Check that a bundle is unchanged and time it on this host, beside what was predicted."""
    from hwnas.deploy import bench as measure
    from hwnas.deploy import open_bundle
    from hwnas.targets import RUNTIMES, this_device

    opened = open_bundle(bundle)
    with shown_progress() as progress:
        here = this_device(RUNTIMES[opened.manifest.recipe.runtime].kind)
        result = measure(opened, here, progress=progress)
    if result.target != opened.manifest.target:
        typer.echo(
            f"note: this bundle was predicted for {opened.manifest.target}, and is timed on {result.target}",
            err=True,
        )
    if opened.saturates is not None:
        typer.echo(f"warning: other images may give other outputs here. {opened.saturates}", err=True)
    if as_json:
        options.print_json(asdict(result))
        return
    typer.echo(
        f"{result.measured_ms:.4f} ms on {result.target} (p50 {result.p50_ms:.4f}, p90 {result.p90_ms:.4f}); predicted "
        f"{result.predicted_ms:.4f} ms ({result.relative_error:+.1%})"
        + (f", budget {result.budget_ms:.4f} ms" if result.budget_ms else "")
        + (f"; timed on core {result.cores}" if result.cores else "")
        + (f" ({result.cores_note})" if result.cores_note else "")
    )
    if result.too_noisy:
        typer.echo(f"warning: the machine was too noisy (spread {result.spread:.1%})", err=True)
