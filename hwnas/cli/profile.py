"""`hwnas profile`: measure a space's ops on a target."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress


def profile(
    space: options.SpaceName,
    target: options.Target,
    fix: options.Fix = None,
    channels: options.Channels = None,
    classes: options.Classes = None,
    tables: options.Tables = None,
    networks: Annotated[
        int, typer.Option(help="Whole networks timed to fit the context factors.", min=4, max=10_000)
    ] = 16,
    replace: Annotated[bool, typer.Option("--replace", help="Drop an older table instead of adding to it.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Time every distinct op of a space on this host and fit the latency model.

    A killed run goes on where it was. Rows of an older table for the same target stay unless they are measured anew.
    """
    from hwnas.latency import profile as measure
    from hwnas.latency import read_table, write_table
    from hwnas.latency.table import table_lock
    from hwnas.targets import home, only_one, resolve_target

    wanted = resolve_target(target)
    chosen = options.fixed_space(space, fix, channels, classes)
    path = (tables or home() / "latency_tables") / f"{wanted.name}.csv"
    journals = path.parent / f".{path.stem}.journals"
    with only_one(table_lock(path), f"the table of {wanted.name}"), shown_progress() as progress:
        old = read_table(wanted, path) if path.is_file() and not replace else None
        table = measure(chosen, wanted, journals=journals, old=old, networks=networks, progress=progress)
        table = write_table(table, path)
        shutil.rmtree(journals)
    fit = table.fit_for(chosen)
    assert fit is not None
    facts = {
        "target": wanted.name,
        "space": chosen.name,
        "ops": len(chosen.distinct_ops),
        "rows": len(table.rows),
        "calibration_networks": fit.networks,
        "residual_std": fit.residual_std,
        "measurement": table.manifest.measurement,
        "table": str(path),
    }
    if as_json:
        options.print_json(facts)
        return
    measurement = table.manifest.measurement
    typer.echo(
        f"{facts['ops']} ops of {chosen.name} on {wanted.name} in {measurement['passes']} passes; "
        f"the reference op varied by {float(measurement['reference_spread']):.1%}.\n"
        f"Context factors from {fit.networks} networks: held-out error {fit.residual_std:.1%} (standard deviation).\n"
        f"Table: {path}"
    )
    if measurement["too_noisy"] or fit.measurement["too_noisy"]:
        typer.echo(
            "warning: the machine was too noisy for these figures to be trusted; close other work and repeat",
            err=True,
        )
