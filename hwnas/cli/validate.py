"""`hwnas validate`: hold predictions against fresh networks."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress
from hwnas.workflows import inputs


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

    The figures are stored in the table's manifest. On a machine that is too noisy nothing is.
    """
    from hwnas.files import only_one
    from hwnas.latency import load_model, read_table, write_table
    from hwnas.latency.table import table_lock
    from hwnas.profiling import validate as measure
    from hwnas.targets import resolve_target, table_path

    wanted = resolve_target(target)
    chosen = inputs.fixed_space(space, fix, channels, classes)
    path = inputs.table_file(wanted, tables) or table_path(wanted)
    if path is None or not path.is_file():
        read_table(wanted, path)  # says what is missing; there is no table to lock
    assert path is not None
    with only_one(table_lock(path), f"the table of {wanted.name}"), shown_progress() as progress:
        table = read_table(wanted, path)
        model = load_model(table, chosen)
        programs = path.parent / f".{path.stem}.programs"
        report = measure(model, wanted, networks=networks, seed=seed, programs=programs, progress=progress)
        write_table(table.with_validation(chosen, report.summary), path)
    summary, worst = report.summary, report.worst(model)
    if as_json:
        listed = [{"arch": dict(arch), "relative_error": error, "slots_ms": slots} for arch, error, slots in worst]
        options.print_json({"target": wanted.name, "space": chosen.name, **summary.model_dump(), "worst": listed})
        return
    lines = [
        f"{summary.networks} fresh networks of {chosen.name} on {wanted.name}; the machine ran at {summary.speed:.1%} "
        "of its speed at the profile, which is taken out",
        f"  MAPE         {summary.mape:7.2%}   noise floor {summary.noise_floor:.2%} (two measurements)",
        f"  within 5%    {summary.within_5pct:7.1%}   within 10%  {summary.within_10pct:.1%}",
        f"  Kendall τ    {summary.kendall_tau:7.3f}   two measurements {summary.kendall_tau_repeat:.3f}",
    ]
    if summary.below_upper is not None:
        lines.append(
            f"  upper bound  {summary.below_upper:7.1%}   lie below it, at {summary.confidence:.0%} confidence "
            f"{summary.upper_margin:+.2%} over the prediction"
        )
    lines.append("others, fitted on the same networks:")
    lines += [f"  {name:<18} {b.mape:7.2%} MAPE, τ {b.kendall_tau:.3f}" for name, b in summary.baselines.items()]
    lines.append("worst predicted:")
    for arch, error, slots in worst:
        chosen_values = " ".join(f"{name}={value}" for name, value in chosen.describe(arch).items())
        largest = sorted(slots.items(), key=lambda item: -item[1])[:3]
        parts = ", ".join(f"{name} {ms:.4g}" for name, ms in largest)
        lines.append(f"  {error:+.1%}  {sum(slots.values()):.4g} ms (most in {parts}): {chosen_values}")
    typer.echo("\n".join(lines))
