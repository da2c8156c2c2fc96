"""`hwnas compile` and `hwnas quickstart`: the whole pipeline in one command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options, output
from hwnas.cli.bench import FAIL_OVER_BUDGET, OVER
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.pipeline import Job
    from hwnas.pipeline.preview import Preview
    from hwnas.pipeline.stages import Result

Budget = Annotated[
    str | None,
    typer.Option(help="Latency on every target: 0.8ms, or 50% of the largest network's; by default the job's."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the stages that would run, and why; time and write nothing.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Repeat a stage and all that depend on it: check (of images), profile, validate, elastic (of a network of "
        "yours), train, accuracy, search, finetune, export, bench.",
        metavar="STAGE",
    ),
]


def compile_(
    job: Annotated[Path, typer.Argument(help="A job as TOML.", metavar="JOB")],
    out: Annotated[Path | None, typer.Option(help="Output folder; by default the job's name.")] = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    again: From = None,
    skip_bad: options.SkipBad = False,
    fail_over_budget: Annotated[bool, typer.Option("--fail-over-budget", help=FAIL_OVER_BUDGET)] = False,
    as_json: options.AsJson = False,
) -> None:
    """Profile, validate, train, search, export and re-benchmark for each target of a job.

    Finished stages are reused; a killed run resumes.
    """
    from hwnas.pipeline import read_job

    read = read_job(job)
    if skip_bad:
        read = read.model_copy(update={"data": read.data.model_copy(update={"skip_bad": True})})
    report = run_job(read, out or Path(job.stem), {"budget": budget}, dry_run, again, as_json)
    if report and fail_over_budget:
        fail_over(report["targets"])


def quickstart(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("hwnas-quickstart"),
    budget: Budget = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="device/recipe instead of this/onnxruntime-cpu-fp32; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.", min=0, max=options.MAX_SEED)] = None,
    dry_run: DryRun = False,
    again: From = None,
    as_json: options.AsJson = False,
) -> None:
    """Compile a small job on this host: handwritten digits, ONNX Runtime, half of the largest network's latency."""
    from hwnas.pipeline import quickstart_job

    given = {"budget": budget, "targets": target or None, "seed": seed}
    run_job(quickstart_job(), out, given, dry_run, again, as_json)


def run_job(
    job: Job, out: Path, given: Mapping[str, object], dry_run: bool, again: str | None, as_json: bool
) -> Result | None:
    """Run or preview a job, print the result, and return the report of a run."""
    from hwnas.pipeline import compile_job, preview_job
    from hwnas.report.page import PAGE
    from hwnas.report.text import summary

    job = job.model_copy(update={name: value for name, value in given.items() if value is not None})
    if dry_run:
        stages = preview_job(job, out, again=again)
        if as_json:
            output.print_json({"stages": [asdict(stage) for stage in stages]})
        else:
            typer.echo("\n".join([*map(_line, stages), *_total(stages)]))
            _tell_others(out, (f"{s.name}-{s.key}" for s in stages), (s.target for s in stages if s.target))
        return None
    try:
        with shown_progress() as progress:
            report = compile_job(job, out, again=again, progress=progress)
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", ()):
            typer.echo(note, err=True)
        raise
    if as_json:
        output.print_json(report)
    else:
        typer.echo(f"{summary(report, out)}\n  report       {out / PAGE}")
        used = (f"{s['name']}-{s['key']}" for answer in report["targets"].values() for s in answer["stages"])
        _tell_others(out, used, report["targets"])
    _require_steady(report["targets"])
    return report


def fail_over(answers: Mapping[str, Result]) -> None:
    """End with exit code 1 if a target misses a budget."""
    if any(max([answer["over_budget"], *answer["over_budgets"].values()]) > 0 for answer in answers.values()):
        raise typer.Exit(OVER)


def _require_steady(answers: Mapping[str, Result]) -> None:
    """Check that the measurements of all targets can be trusted.

    Raises:
        TooNoisy: one cannot.
    """
    from hwnas.errors import TooNoisy

    if noisy := {name: answer["noise"]["spread"] for name, answer in answers.items() if answer["noise"]["too_noisy"]}:
        raise TooNoisy(
            f"the machine was too noisy for the benchmark of {', '.join(noisy)} (spread "
            f"{', '.join(f'{spread:.1%}' for spread in noisy.values())}): stage bench is not finished. Close other "
            "programs and run the same command again: it repeats that stage only"
        )


def _line(stage: Preview) -> str:
    what = f"{stage.name:9}{'reuse' if stage.cached else 'run'}"
    details = [*([stage.target] if stage.target else []), *stage.why, *_duration(stage)]
    return f"{what:16}{'; '.join(details)}".rstrip()


def _duration(stage: Preview) -> Iterator[str]:
    """The time that a stage took, or may take."""
    if stage.seconds is not None:
        yield f"took {_span(stage.seconds)}"
    if stage.expected_s is not None:
        whose = "" if stage.expected_of == stage.target else f" for {stage.expected_of}"
        yield f"about {_span(stage.expected_s)}, like the last {stage.name} here{whose}"


def _total(stages: list[Preview]) -> Iterator[str]:
    """The sum of the estimates, and the stages without one."""
    waiting = [stage for stage in stages if not stage.cached]
    unknown = [stage.name for stage in waiting if stage.expected_s is None]
    if len(unknown) == len(waiting):
        if waiting:
            yield "no time estimate: no such stage has run in this folder before"
        return
    rest = f" and, never run in this folder, {', '.join(dict.fromkeys(unknown))}" if unknown else ""
    seconds = sum(stage.expected_s or 0.0 for stage in waiting)
    yield f"together about {_span(seconds)}{rest}; changed settings may change that"


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _tell_others(out: Path, used: Iterable[str], targets: Iterable[str]) -> None:
    """List what the folder keeps besides the job's stages and bundles: it grows with every change of settings."""
    from hwnas.deploy.manifest import MANIFEST
    from hwnas.pipeline.cache import UNFINISHED

    names, named = set(used), set(targets)
    for bundle in sorted(path.parent for path in (out / "bundles").glob(f"*/*/{MANIFEST}")):
        if (name := bundle.relative_to(out / "bundles").as_posix()) not in named:
            typer.echo(f"{bundle} is from an earlier run: {name} is not a target of this job")
    others = [path for path in (out / "stages").glob("*-*") if path.name.removesuffix(UNFINISHED) not in names]
    if others:
        size = sum(path.stat().st_size for folder in others for path in folder.rglob("*") if path.is_file())
        unfinished = sum(folder.name.endswith(UNFINISHED) for folder in others)
        typer.echo(
            f"{out / 'stages'} also keeps {len(others)} stages of other settings"
            + (f", {unfinished} of them unfinished" if unfinished else "")
            + f" ({size / 1e6:.1f} MB), reused with those settings; delete those that you do not need"
        )
