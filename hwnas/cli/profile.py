"""`hwnas profile`: measure a space's ops on a target."""

from __future__ import annotations

import logging
import shutil
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress
from hwnas.workflows import inputs

log = logging.getLogger(__name__)


def profile(
    space: options.SpaceName,
    target: options.Target,
    fix: options.Fix = None,
    channels: options.Channels = None,
    classes: options.Classes = None,
    tables: options.Tables = None,
    networks: Annotated[
        int, typer.Option(help="Whole networks timed to fit what context does to ops.", min=4, max=10_000)
    ] = 16,
    bound_networks: Annotated[
        int,
        typer.Option(help="Further networks that upper bounds are read from; n carry n / (n + 1).", min=0, max=10_000),
    ] = 24,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Time only the ops that the table lacks.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop an older table instead of adding to it.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Time every distinct op of a space on this host and fit the latency model.

    A killed run resumes. Rows of an older table for the same target stay unless they are measured anew. On
    a machine that is too noisy nothing is written.
    """
    from hwnas.errors import InvalidValue
    from hwnas.files import only_one
    from hwnas.latency import read_table, write_table
    from hwnas.latency.table import profile_command, table_lock
    from hwnas.profiling import profile as measure
    from hwnas.targets import resolve_target, table_path, writable_home

    if replace and only_missing:
        raise InvalidValue("give --replace or --only-missing, not both: one drops the rows that the other keeps")
    wanted = resolve_target(target)
    chosen = inputs.fixed_space(space, fix, channels, classes)
    path = inputs.table_file(wanted, tables or writable_home() / "latency_tables")
    assert path is not None
    journals = path.parent / f".{path.stem}.journals"
    with only_one(table_lock(path), f"the table of {wanted.name}"), shown_progress() as progress:
        shipped = table_path(wanted)
        if tables is None and not path.is_file() and shipped:
            log.warning(
                "your table of %s will stand in place of the shipped one, %s, for every space; the figures of two "
                "machines are not mixed. --tables DIR writes elsewhere",
                wanted.name,
                shipped,
            )
        old = read_table(wanted, path) if path.is_file() and not replace else None
        table = measure(
            chosen,
            wanted,
            journals=journals,
            old=old,
            networks=networks,
            bound_networks=bound_networks,
            only_missing=only_missing,
            progress=progress,
        )
        for lost in old.manifest.fits if old else ():
            if not any(lost.domain == kept.domain for kept in table.manifest.fits):
                log.warning(
                    "the fit of %s and its validation are dropped: rows that it was made from were measured anew. "
                    "Profile it again, too, with: %s --only-missing",
                    lost.domain.space,
                    profile_command(lost.domain.make(), wanted),
                )
        kept = table is old
        table = write_table(table, path)
        shutil.rmtree(journals, ignore_errors=True)
    fit = table.fit_for(chosen)
    assert fit is not None
    timed = {"ops": table.manifest.measurement, "networks": fit.measurement}
    facts = {
        "target": wanted.name,
        "space": chosen.name,
        "ops": len(chosen.distinct_ops),
        "rows": len(table.rows),
        "calibration_networks": len(fit.calibration_ms),
        "bound_networks": len(fit.scores),
        "held_out_mape": fit.held_out_mape,
        "terms": fit.terms,
        "measurement": timed,
        "table": str(path),
    }
    if as_json:
        options.print_json(facts)
        return
    if kept:
        typer.echo("No op and no fit was missing: nothing was measured now. The table was made as follows.")
    for what, number in (("ops", facts["ops"]), ("networks", len(fit.calibration_ms) + len(fit.scores))):
        measurement = timed[what]
        typer.echo(
            f"{number} {what} of {chosen.name} on {wanted.name} in {measurement['passes']} passes, which agree within "
            f"{float(measurement['disagreement']):.1%}; the machine drifted by up to {float(measurement['drift']):.1%}."
        )
    typer.echo(
        f"Context: {len(fit.terms)} terms from {len(fit.calibration_ms)} networks, held-out error "
        f"{fit.held_out_mape:.2%}.\n"
        f"Table: {path}"
    )
