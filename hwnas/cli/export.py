"""`hwnas export`: a subnet as a deployable bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress
from hwnas.workflows import inputs


def export(
    arch: Annotated[Path, typer.Argument(help="File that `hwnas search` wrote, or your own.", metavar="ARCH")],
    supernet: Annotated[Path, typer.Option(help="Folder that `hwnas train` wrote.")],
    target: options.Target,
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    tables: options.Tables = None,
    as_json: options.AsJson = False,
) -> None:
    """Extract a subnet, lower it, check its parity on the test images, and write a bundle."""
    from hwnas.accuracy import Evaluator
    from hwnas.deploy.export import export as make
    from hwnas.supernet import load_supernet
    from hwnas.targets import resolve_target

    wanted = resolve_target(target)
    net, facts = load_supernet(supernet)
    values, budget_ms = inputs.read_arch(arch)
    latency = inputs.latency_model(wanted, tables, net.space)
    evaluator = Evaluator(net, inputs.reopen_data(facts), images=None, seed=1)
    with shown_progress() as progress:
        bundle = make(net.space.arch(values), evaluator, wanted, latency, out, budget_ms=budget_ms, progress=progress)
    manifest = bundle.manifest
    if as_json:
        options.print_json({"bundle": str(out), **manifest.model_dump(mode="json", by_alias=True)})
    else:
        typer.echo(
            f"{manifest.accuracy:.2%} on {manifest.parity.images} test images, largest difference of a logit "
            f"{manifest.parity.max_abs_error:.2e}, predicted {manifest.predicted_ms:.4g} ms: {out}"
        )
