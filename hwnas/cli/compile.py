"""`hwnas compile` and `hwnas quickstart`: the whole way in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress

if TYPE_CHECKING:
    from hwnas.pipeline import Job

Budget = Annotated[
    str | None, typer.Option(help="Latency: 0.8ms, or 50% of the largest network's; the job's if left out.")
]


def compile_(
    job: Annotated[Path, typer.Argument(help="A job as TOML.", metavar="JOB")],
    out: Annotated[Path | None, typer.Option(help="Output folder; the job's name if left out.")] = None,
    budget: Budget = None,
    as_json: options.AsJson = False,
) -> None:
    """Profile, validate, train, search, export and re-benchmark, as a job says.

    Finished stages are reused; a killed run goes on where it was.
    """
    from hwnas.pipeline import read_job

    _run(read_job(job), out or Path(job.stem), {"budget": budget}, as_json)


def quickstart(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("hwnas-quickstart"),
    budget: Budget = None,
    target: Annotated[str | None, typer.Option(help="device/recipe instead of this/onnxruntime-cpu-fp32.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything that is drawn.", min=0, max=options.MAX_SEED)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compile a small job on this host: handwritten digits, ONNX Runtime, half of the largest network's latency."""
    from hwnas.pipeline import quickstart_job

    _run(quickstart_job(), out, {"budget": budget, "target": target, "seed": seed}, as_json)


def _run(job: Job, out: Path, given: dict[str, object], as_json: bool) -> None:
    from hwnas.pipeline import compile_job
    from hwnas.pipeline.page import PAGE
    from hwnas.pipeline.report import summary

    job = job.model_copy(update={name: value for name, value in given.items() if value is not None})
    with shown_progress() as progress:
        answer = compile_job(job, out, progress=progress)
    if as_json:
        options.print_json(answer)
    else:
        typer.echo(f"{summary(answer)}\n  report       {out / PAGE}")
