"""`hwnas bench`: time a bundle again."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.shown_progress import shown_progress

OVER = 1  # the exit code of --fail-over-budget
FAIL_OVER_BUDGET = "Exit code 1 if the measured latency is over the budget; 2 if the machine was too noisy to say."


def bench(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.", metavar="BUNDLE")],
    budget: Annotated[
        str | None, typer.Option(help="Latency to hold it against, such as 0.8ms; the bundle's own if left out.")
    ] = None,
    fail_over_budget: Annotated[bool, typer.Option("--fail-over-budget", help=FAIL_OVER_BUDGET)] = False,
    as_json: options.AsJson = False,
) -> None:
    """Check that a bundle is unchanged and time it on this host, beside what was predicted."""
    from hwnas.deploy import bench as measure
    from hwnas.deploy import open_bundle
    from hwnas.deploy.verdict import verdict
    from hwnas.errors import InvalidValue, TooNoisy
    from hwnas.targets import this_device

    opened = open_bundle(bundle)
    budget_ms = opened.manifest.budget_ms if budget is None else _milliseconds(budget)
    if fail_over_budget and budget_ms is None:
        raise InvalidValue(f"{bundle} was made without a budget; name one: hwnas bench {bundle} --budget 0.8ms")
    with shown_progress() as progress:
        here = this_device(opened.manifest.recipe.facts.kind)
        result = replace(measure(opened, here, progress=progress), budget_ms=budget_ms)
    if result.target != opened.manifest.target:
        typer.echo(
            f"note: this bundle was predicted for {opened.manifest.target}, and is timed on {result.target}",
            err=True,
        )
    if opened.saturates is not None:
        typer.echo(f"warning: other images may give other outputs here. {opened.saturates}", err=True)
    if as_json:
        options.print_json({**asdict(result), "over_budget": result.over_budget})
    else:
        typer.echo(
            f"{result.measured_ms:.4f} ms on {result.target} (p50 {result.p50_ms:.4f}, p90 {result.p90_ms:.4f}); "
            f"predicted {result.predicted_ms:.4f} ms ({result.relative_error:+.1%})"
            + (f"; timed on core {result.cores}" if result.cores else "")
            + (f" ({result.cores_note})" if result.cores_note else "")
        )
        if budget_ms is not None:
            typer.echo(verdict(result.measured_ms, budget_ms, too_noisy=result.too_noisy))
    if result.too_noisy:
        noise = (
            f"the machine was too noisy (spread {result.spread:.1%}); close what else runs on it and time the bundle "
            f"again: hwnas bench {bundle}"
        )
        if fail_over_budget:
            raise TooNoisy(noise)
        typer.echo(f"warning: {noise}", err=True)
    if fail_over_budget and result.over_budget is not None and result.over_budget > 0:
        raise typer.Exit(OVER)


def _milliseconds(text: str) -> float:
    """A budget in milliseconds.

    Raises:
        InvalidValue: it is not a latency.
    """
    from hwnas.errors import InvalidValue
    from hwnas.search.objectives import check_budget_text

    value, unit = check_budget_text(text)
    if unit not in ("", "ms"):
        raise InvalidValue(f"the budget of a bundle is a latency in milliseconds, such as 0.8ms; not {text!r}")
    return value
