"""`hwnas validate`: hold predictions against fresh networks."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress


def validate(
    space: options.SpaceName,
    target: options.Target,
    fix: options.Fix = None,
    channels: options.Channels = None,
    classes: options.Classes = None,
    tables: options.Tables = None,
    networks: Annotated[int, typer.Option(help="Fresh networks to measure.", min=2, max=10_000)] = 40,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Measure networks that the model never saw, twice, and compare them with the predictions.

    The figures are stored in the table's manifest.
    """
    from hwnas.latency import load_model, read_table, write_table
    from hwnas.latency import validate as measure
    from hwnas.latency.profile import with_validation
    from hwnas.latency.table import table_lock
    from hwnas.targets import only_one, resolve_target, table_path

    wanted = resolve_target(target)
    chosen = options.fixed_space(space, fix, channels, classes)
    path = tables / f"{wanted.name}.csv" if tables else table_path(wanted)
    table = read_table(wanted, path)
    assert path is not None
    with only_one(table_lock(path), f"the table of {wanted.name}"), shown_progress() as progress:
        table = read_table(wanted, path)
        model = load_model(table, chosen)
        report = measure(model, wanted, networks=networks, seed=seed, progress=progress)
        write_table(with_validation(table, chosen, report.summary), path)
    summary = report.summary
    if as_json:
        worst = [
            {"arch": dict(arch), "relative_error": error, "slots_ms": slots}
            for arch, error, slots in report.worst(model)
        ]
        options.print_json({"target": wanted.name, "space": chosen.name, **summary.model_dump(), "worst": worst})
    else:
        typer.echo(
            f"{summary.networks} fresh networks of {chosen.name} on {wanted.name}\n"
            f"  MAPE         {summary.mape:7.2%}   (plain sum of the table {summary.plain_sum_mape:.2%})\n"
            f"  noise floor  {summary.noise_floor:7.2%}   (two measurements of the same networks)\n"
            f"  within 5%    {summary.within_5pct:7.1%}\n"
            f"  within 10%   {summary.within_10pct:7.1%}\n"
            f"  Kendall τ    {summary.kendall_tau:7.3f}   (two measurements {summary.kendall_tau_repeat:.3f})"
        )
        if summary.spread > 0.15:
            typer.echo(f"warning: the machine was too noisy (spread {summary.spread:.1%})", err=True)
