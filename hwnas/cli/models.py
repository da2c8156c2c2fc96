"""How the verbs bench, sweep and export show a model that hwnas did not build."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hwnas.cli import output
from hwnas.errors import InvalidValue
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.deploy.model_bench import ModelTiming
    from hwnas.deploy.model_manifest import ModelParity
    from hwnas.report.model_figures import ModelFacts

_DEFAULT = "this/onnxruntime-cpu-fp32"


def is_model(path: Path) -> bool:
    """Whether an argument names a model rather than a bundle or an arch."""
    from hwnas.plugins import in_file

    return path.suffix in (".onnx", ".pt2") or in_file(str(path))


def required_supernet(supernet: Path | None, arch: Path) -> Path:
    """The supernet of an arch.

    Raises:
        InvalidValue: it is missing.
    """
    if supernet is None:
        raise InvalidValue(
            f"--supernet is missing: {arch} is an arch, whose weights are in the folder from `hwnas train`. (A model "
            "is a file .onnx or .pt2, or path/to/file.py:NAME)"
        )
    return supernet


def not_for_models(options_of_archs: Mapping[str, object]) -> None:
    """Check that no option of archs was given with a model.

    Raises:
        InvalidValue: one was.
    """
    if given := [name for name, value in options_of_archs.items() if value]:
        raise InvalidValue(f"{' and '.join(given)}: these are for an arch of a supernet, and not for a model")


def only_for_models(
    what: Path, shape: list[str] | None, inputs: Path | None, weights: Path | None, run: Path | None = None
) -> None:
    """Check that no option of models was given.

    Raises:
        InvalidValue: one was.
    """
    values = {"--shape": shape, "--inputs": inputs, "--weights": weights, "--out": run}
    given = [name for name, value in values.items() if value]
    if given:
        raise InvalidValue(
            f"{' and '.join(given)}: {what} is not a model, which is a file .onnx or .pt2, or path/to/file.py:NAME"
        )


def bench_model(
    model: Path,
    targets: list[str],
    shape: list[str] | None,
    inputs: Path | None,
    weights: Path | None,
    *,
    runs: int,
    layers: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Time a model under some targets, and show where the milliseconds go."""
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.bench_model(
            model,
            targets or [_DEFAULT],
            shapes=shape or (),
            inputs=inputs,
            weights=weights,
            runs=runs,
            layers=layers > 0 or as_json or out is not None,
            out=out,
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
        return
    _print_facts(answer.model)
    _print_latencies(answer.targets)
    for timing in answer.targets:
        _print_layers(timing, layers)
    _print_left_out(answer.left_out)
    output.print_page(out)


def sweep_model(
    model: Path,
    device: str,
    recipes: list[str],
    max_drop: float,
    shape: list[str] | None,
    inputs: Path | None,
    weights: Path | None,
    *,
    metric: str | None,
    out: Path | None,
    as_json: bool,
) -> bool:
    """Compare a model under the recipes of a device; whether one is picked."""
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.sweep_model(
            model,
            device=device,
            recipes=recipes,
            shapes=shape or (),
            inputs=inputs,
            weights=weights,
            metric=metric,
            max_drop=max_drop,
            out=out,
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
        return answer.picked is not None
    _print_facts(answer.model)
    _print_latencies([one.timing for one in answer.recipes])
    for one in answer.recipes:
        name = one.timing.target.partition("/")[2]
        kept = f"; {len(one.float_layers)} layers in float" if one.float_layers else ""
        typer.echo(f"{name}: {_closeness(one.parity)}{kept}" + (f". Refused: {one.refused}" if one.refused else ""))
    _print_left_out(answer.left_out)
    if answer.picked:
        words = ["hwnas", "export", str(model), "--target", answer.picked]
        for text in shape or ():
            words += ["--shape", text]
        words += ["--inputs", str(inputs)] if inputs else []
        words += ["--weights", str(weights)] if weights else []
        words += ["--metric", metric] if metric else []
        typer.echo(
            f"picked: {answer.picked}, the fastest that is close enough. Export it with: {shlex.join(words)} "
            "--out bundle"
        )
    else:
        typer.echo("picked: none; every recipe is refused, or the machine was too noisy for its latency")
    output.print_page(out)
    return answer.picked is not None


def export_model(
    model: Path,
    target: str,
    out: Path,
    shape: list[str] | None,
    inputs: Path | None,
    weights: Path | None,
    *,
    metric: str | None,
    as_json: bool,
) -> None:
    """Write the bundle of a model."""
    from hwnas import workflows

    with shown_progress() as progress:
        bundle = workflows.export_model(
            model, target, out, shapes=shape or (), inputs=inputs, weights=weights, metric=metric, progress=progress
        )
    manifest = bundle.manifest
    if as_json:
        output.print_json({"bundle": str(out), **manifest.model_dump(mode="json", by_alias=True)})
        return
    for note in manifest.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{manifest.model} for {manifest.target}: {_closeness(manifest.parity)}: {out}")


def _closeness(parity: ModelParity) -> str:
    worst = max(parity.outputs, key=lambda one: one.max_abs_error / (one.largest or 1.0))
    cosine = "" if worst.min_cosine is None else f", cosine at least {worst.min_cosine:.6f}"
    what = "random inputs" if parity.random else "samples"
    text = (
        f"on {parity.samples} {what}, {worst.name} differs from fp32 by at most {worst.max_abs_error:.2e} of "
        f"{worst.largest:.3g}{cosine}"
    )
    if parity.metric is not None:
        text += f"; {parity.metric} {parity.deployed:.4g}, in fp32 {parity.reference:.4g}"
    return text


def _print_facts(facts: ModelFacts) -> None:
    typer.echo(f"{facts.name}: {'; '.join(facts.inputs)} -> {'; '.join(facts.outputs)}. On {facts.samples}.")
    for note in facts.notes:
        typer.echo(f"note: {note}", err=True)


def _print_latencies(timings: list[ModelTiming]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("target", box=None, header_style="bold")
    for column in ("p25 (ms)", "p50", "p90", "p99", "runs/s", "size"):
        table.add_column(column, justify="right")
    for one in timings:
        table.add_row(
            one.target + (" (noisy)" if one.too_noisy else ""),
            *(f"{ms:.4f}" for ms in (one.measured_ms, one.p50_ms, one.p90_ms)),
            "" if one.p99_ms is None else f"{one.p99_ms:.4f}",
            f"{one.runs_per_s:,.4g}",
            f"{one.size_bytes / 1e6:.2f} MB",
        )
    Console(soft_wrap=True, highlight=False).print(table)


def _print_layers(timing: ModelTiming, count: int) -> None:
    """The slowest layers, and the rest in one row."""
    from rich.console import Console
    from rich.table import Table

    if not timing.layers or not count:
        return
    table = Table(timing.target.partition("/")[2], "layer", box=None, header_style="bold")
    for column in ("ms", "share", "GMAC/s", "of roofline"):
        table.add_column(column, justify="right")
    for one in timing.layers[:count]:
        rate = "" if not one.macs else f"{one.macs / one.ms / 1e6:.1f}"
        reached = timing.roofline and timing.roofline.reached(one)
        table.add_row(
            one.kind, one.name, f"{one.ms:.4f}", f"{one.share:.1%}", rate, "" if reached is None else f"{reached:.0%}"
        )
    rest = timing.layers[count:]
    if rest:
        ms = sum(one.ms for one in rest)
        table.add_row(f"{len(rest)} others", "", f"{ms:.4f}", f"{ms / timing.measured_ms:.1%}", "", "")
    between = timing.between_ms or 0.0
    table.add_row("between layers", "", f"{between:.4f}", f"{between / timing.measured_ms:.1%}", "", "")
    Console(soft_wrap=True, highlight=False).print(table)
    if timing.profiler_ms:
        typer.echo(f"  (without {timing.profiler_ms * 1e3:.1f} µs per layer that the runtime's profiler adds)")


def _print_left_out(left_out: dict[str, str]) -> None:
    for name, why in left_out.items():
        typer.echo(f"left out: {name}: {why}", err=True)
