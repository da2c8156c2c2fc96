"""`hwnas compile` and `hwnas quickstart`: the whole way in one command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress

if TYPE_CHECKING:
    from hwnas.pipeline import Job
    from hwnas.pipeline.preview import Preview

Budget = Annotated[
    str | None,
    typer.Option(help="Latency on every target: 0.8ms, or 50% of the largest network's; the job's if left out."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say which stages would be done and why; nothing is timed or written.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Do a stage again with all that builds on it: profile, validate, train, accuracy, search, export, bench.",
        metavar="STAGE",
    ),
]


def compile_(
    job: Annotated[Path, typer.Argument(help="A job as TOML.", metavar="JOB")],
    out: Annotated[Path | None, typer.Option(help="Output folder; the job's name if left out.")] = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    again: From = None,
    as_json: options.AsJson = False,
) -> None:
    """Profile, validate, train, search, export and re-benchmark, as a job says, for each of its targets.

    Finished stages are reused; a killed run goes on where it was.
    """
    from hwnas.pipeline import read_job

    _run(read_job(job), out or Path(job.stem), {"budget": budget}, dry_run, again, as_json)


def quickstart(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("hwnas-quickstart"),
    budget: Budget = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="device/recipe instead of this/onnxruntime-cpu-fp32; several are done side by side."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything that is drawn.", min=0, max=options.MAX_SEED)
    ] = None,
    dry_run: DryRun = False,
    again: From = None,
    as_json: options.AsJson = False,
) -> None:
    """Compile a small job on this host: handwritten digits, ONNX Runtime, half of the largest network's latency."""
    from hwnas.pipeline import quickstart_job

    given = {"budget": budget, "targets": target or None, "seed": seed}
    _run(quickstart_job(), out, given, dry_run, again, as_json)


def _run(job: Job, out: Path, given: Mapping[str, object], dry_run: bool, again: str | None, as_json: bool) -> None:
    from hwnas.pipeline import compile_job, preview_job
    from hwnas.pipeline.page import PAGE
    from hwnas.pipeline.report import summary

    job = job.model_copy(update={name: value for name, value in given.items() if value is not None})
    if dry_run:
        stages = preview_job(job, out, again=again)
        if as_json:
            options.print_json({"stages": [asdict(stage) for stage in stages]})
        else:
            typer.echo("\n".join(map(_line, stages)))
            _tell_others(out, (f"{s.name}-{s.key}" for s in stages), (s.target for s in stages if s.target))
        return
    try:
        with shown_progress() as progress:
            report = compile_job(job, out, again=again, progress=progress)
    except KeyboardInterrupt as error:
        for note in getattr(error, "__notes__", ()):
            typer.echo(note, err=True)
        raise
    if as_json:
        options.print_json(report)
    else:
        typer.echo(f"{summary(report, out)}\n  report       {out / PAGE}")
        used = (f"{s['name']}-{s['key']}" for answer in report["targets"].values() for s in answer["stages"])
        _tell_others(out, used, report["targets"])


def _line(stage: Preview) -> str:
    what = f"{stage.name:9}{'reuse' if stage.cached else 'run'}"
    details = [*([stage.target] if stage.target else []), *stage.why]
    return f"{what:16}{'; '.join(details)}".rstrip()


def _tell_others(out: Path, used: Iterable[str], targets: Iterable[str]) -> None:
    """Say what the folder keeps beside a job's own stages and bundles: it grows with every setting that is tried."""
    from hwnas.deploy.manifest import MANIFEST
    from hwnas.pipeline.cache import UNFINISHED

    names, named = set(used), set(targets)
    for bundle in sorted(path.parent for path in (out / "bundles").glob(f"*/*/{MANIFEST}")):
        if (name := bundle.relative_to(out / "bundles").as_posix()) not in named:
            typer.echo(f"{bundle} is of an earlier run: {name} is no target of this job")
    others = [path for path in (out / "stages").glob("*-*") if path.name.removesuffix(UNFINISHED) not in names]
    if others:
        size = sum(path.stat().st_size for folder in others for path in folder.rglob("*") if path.is_file())
        unfinished = sum(folder.name.endswith(UNFINISHED) for folder in others)
        typer.echo(
            f"{out / 'stages'} also keeps {len(others)} stages of other settings"
            + (f", {unfinished} of them unfinished" if unfinished else "")
            + f" ({size / 1e6:.1f} MB), reused when these come back; delete those that you do not need"
        )
