"""`hwnas predict`: the latency of a model on a device that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options, output
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.workflows import PredictAnswer


def predict(
    model: Annotated[
        Path,
        typer.Argument(help="model.onnx, program.pt2 of torch.export.save, or net.py:make.", metavar="MODEL"),
    ],
    target: options.Target,
    shape: options.Shape = None,
    weights: options.ModelWeights = None,
    tables: options.Tables = None,
    confidence: Annotated[float, typer.Option(help="Of the upper bound, between 0 and 1.")] = 0.95,
    layers: Annotated[int, typer.Option(help="Number of layers to show, the slowest first.", min=0)] = 10,
    out: options.ModelRun = None,
    as_json: options.AsJson = False,
) -> None:
    """Predict a model's latency from a table of kernels (hwnas profile --kernels), layer by layer.

    The target's runtime on this host compiles the model; its device is not needed, and nothing is timed.
    """
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.predict(
            model,
            target,
            shapes=shape or (),
            weights=weights,
            tables=tables,
            confidence=confidence,
            out=out,
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
        return
    for note in answer.notes:
        typer.echo(f"note: {note}", err=True)
    bound = f", at most {answer.upper_ms:.4f} at {answer.confidence:.0%} confidence" if answer.upper_ms else ""
    typer.echo(f"{answer.model.name} on {answer.target}: {answer.predicted_ms:.4f} ms predicted{bound}")
    parts = ", ".join(f"{share:.1%} {how}" for how, share in answer.shares.items() if share)
    typer.echo(f"  {len(answer.kernels)} kernels: {parts} (of their time); the table is of {answer.measured_on}")
    if answer.validation is not None:
        typer.echo(
            f"  predictions of {answer.validation.networks} networks without their own kernels: MAPE "
            f"{answer.validation.mape:.1%}, within 10% {answer.validation.within_10pct:.0%}, Kendall τ "
            f"{answer.validation.kendall_tau:.3f}"
        )
    _print_kernels(answer, layers)
    output.print_page(out)


def _print_kernels(answer: PredictAnswer, count: int) -> None:
    """The slowest kernels, and the rest in one row."""
    from rich.console import Console
    from rich.table import Table

    if not count:
        return
    table = Table("kernel", "layer", "", box=None, header_style="bold")
    for column in ("ms", "share"):
        table.add_column(column, justify="right")
    slowest = sorted(answer.kernels, key=lambda one: -one.ms)
    for one in slowest[:count]:
        table.add_row(one.kernel, one.name, one.how, f"{one.ms:.4f}", f"{one.share:.1%}")
    if rest := slowest[count:]:
        ms = sum(one.ms for one in rest)
        table.add_row(f"{len(rest)} others", "", "", f"{ms:.4f}", f"{ms / answer.predicted_ms:.1%}")
    share = answer.between_ms / answer.predicted_ms
    table.add_row("between kernels", "", "", f"{answer.between_ms:.4f}", f"{share:.1%}")
    Console(soft_wrap=True, highlight=False).print(table)
