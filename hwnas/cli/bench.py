"""`hwnas bench`: time a bundle again, or a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import models, options, output
from hwnas.errors import InvalidValue
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.workflows import BenchAnswer

OVER = 1  # the exit code of --fail-over-budget
FAIL_OVER_BUDGET = "Exit code 1 if a budget is missed, or if the machine was too noisy to say."


def _prediction(answer: BenchAnswer) -> str:
    """The prediction and its error, in words."""
    if answer.predicted_ms is None or answer.expected_ms is None or answer.relative_error is None:
        return "no prediction, because the bundle was exported without a latency table"
    if answer.speed is None:
        return (
            f"predicted {answer.predicted_ms:.4f} ms ({answer.relative_error:+.1%}; the bundle has no reference "
            "programs, so it is not known how fast the machine is today)"
        )
    return (
        f"predicted {answer.predicted_ms:.4f} ms, or {answer.expected_ms:.4f} at the machine's speed now, which is "
        f"{answer.speed:.1%} of that in the profile ({answer.relative_error:+.1%})"
    )


def _tails(answer: BenchAnswer, bundle: Path) -> str:
    """High quantiles and throughput, in words; a quantile with too few runs says how many it needs."""
    from hwnas.timing import runs_for

    known = [f"{name} {ms:.4f} ms" for name, ms in (("p95", answer.p95_ms), ("p99", answer.p99_ms)) if ms is not None]
    images = "one image" if answer.batch == 1 else f"{answer.batch} images"
    known.append(f"{answer.images_per_s:,.4g} images/s (one stream, {images} a run)")
    text = ", ".join(known)
    missing = [(name, runs_for(q)) for name, q in (("p95", 0.95), ("p99", 0.99)) if answer.runs < runs_for(q)]
    if missing:
        needs = " and ".join(f"{name} needs {runs:,} runs" for name, runs in missing)
        again = f"hwnas bench {shlex.quote(str(bundle))} --runs {missing[-1][1]}"
        text += f"; {needs}, there were {answer.runs:,}: {again}"
    return text


def bench(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Folder of a bundle; or a model: model.onnx, program.pt2 of torch.export.save, or net.py:make.",
            metavar="BUNDLE|MODEL",
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a bundle: device/recipe with its recipe, e.g. of a device with a connection (hwnas devices "
            "connect); by default this host. Of a model: device/recipe, or device/* for all recipes; may be repeated.",
            metavar="DEVICE/RECIPE",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Latency budget to compare with, such as 0.8ms, by default the bundle's; also p95=1.2ms (p50, p90, "
            "p99) and images_per_s=500. May be repeated: all apply."
        ),
    ] = None,
    fail_over_budget: Annotated[bool, typer.Option("--fail-over-budget", help=FAIL_OVER_BUDGET)] = False,
    runs: Annotated[
        int | None,
        typer.Option(help="Least number of timed runs; p95 needs 200 of them, p99 1,000. By default the protocol's."),
    ] = None,
    shape: options.Shape = None,
    inputs: options.Inputs = None,
    weights: options.ModelWeights = None,
    layers: Annotated[int, typer.Option(help="Of a model: number of layers to show, the slowest first.", min=0)] = 10,
    out: options.ModelRun = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that a bundle is unchanged, time it, and compare with its prediction. Or time a model and its layers.

    Exit code 1 if the machine is too noisy for a figure.
    """
    from hwnas import workflows
    from hwnas.deploy.verdict import budget_words, verdict

    if models.is_model(bundle):
        if budget or fail_over_budget:
            raise InvalidValue("budgets are of bundles: export the model first (hwnas export)")
        models.bench_model(
            bundle, target or [], shape, inputs, weights, runs=runs or 0, layers=layers, out=out, as_json=as_json
        )
        return
    models.only_for_models(bundle, shape, inputs, weights, out)
    if target and len(target) > 1:
        raise InvalidValue("a bundle has one recipe: give one --target")
    with shown_progress() as progress:
        answer = workflows.bench(
            bundle,
            target=target[0] if target else None,
            budget=budget or (),
            require_budget=fail_over_budget,
            runs=runs,
            progress=progress,
        )
    if answer.target != answer.predicted_for:
        typer.echo(
            f"note: this bundle was predicted for {answer.predicted_for}, but is timed on {answer.target}", err=True
        )
    if answer.saturates is not None:
        typer.echo(f"warning: outputs may differ on this host for other images. {answer.saturates}", err=True)
    if as_json:
        output.print_json(answer.document())
    else:
        typer.echo(
            f"{answer.measured_ms:.4f} ms on {answer.target} (p50 {answer.p50_ms:.4f}, p90 {answer.p90_ms:.4f}); "
            + _prediction(answer)
            + (f"; timed on core {answer.cores}" if answer.cores else "")
            + (f" ({answer.cores_note})" if answer.cores_note else "")
        )
        typer.echo(_tails(answer, bundle))
        if answer.budget_ms is not None:
            at_speed = f"{answer.judged_ms:.4f} ms at the profile's speed: " if answer.speed else ""
            typer.echo(at_speed + verdict(answer.judged_ms, answer.budget_ms))
        for name, value in answer.budgets.items():
            typer.echo(budget_words(name, value, answer.over_budgets[name]))
    if fail_over_budget and max(answer.over_budget or 0.0, *answer.over_budgets.values(), 0.0) > 0:
        raise typer.Exit(OVER)
