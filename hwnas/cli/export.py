"""`hwnas export`: a subnet, or a model, as a deployable bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import models, options, output
from hwnas.shown_progress import shown_progress


def export(
    arch: options.ArchOrModel,
    target: options.Target,
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    supernet: options.SupernetOfArch = None,
    data_path: options.MovedData = None,
    tables: options.Tables = None,
    metric: options.DeployedMetric = None,
    positive: options.Positive = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="Make a step part of the program: normalize (it takes uint8 images, height x width x channels) or "
            "softmax. May be repeated."
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool,
        typer.Option(
            "--dynamic-batch",
            help="Make a program that takes any number of images in a run; latencies are still of the recipe's batch.",
        ),
    ] = False,
    shape: options.Shape = None,
    inputs: options.Inputs = None,
    weights: options.ModelWeights = None,
    as_json: options.AsJson = False,
) -> None:
    """Extract a subnet, lower it, check its parity on the test images, and write a bundle. Or do so with a model."""
    from hwnas import workflows
    from hwnas.tasks.figures import metric_suffix

    if models.is_model(arch):
        models.not_for_models(
            {
                "--supernet": supernet,
                "--data-path": data_path,
                "--tables": tables,
                "--positive": positive,
                "--include": include,
                "--dynamic-batch": dynamic_batch,
            }
        )
        models.export_model(arch, target, out, shape, inputs, weights, metric=metric, as_json=as_json)
        return
    models.only_for_models(arch, shape, inputs, weights)
    supernet = models.required_supernet(supernet, arch)
    with shown_progress() as progress:
        bundle = workflows.export(
            arch,
            supernet,
            target,
            out,
            data_path=data_path,
            tables=tables,
            metric=metric,
            positive=positive,
            include=include or (),
            dynamic_batch=dynamic_batch,
            progress=progress,
        )
    manifest = bundle.manifest
    predicted = "no prediction" if manifest.predicted_ms is None else f"predicted {manifest.predicted_ms:.4g} ms"
    if as_json:
        output.print_json({"bundle": str(out), **manifest.model_dump(mode="json", by_alias=True)})
    else:
        typer.echo(
            f"{manifest.accuracy:.2%}{metric_suffix(manifest.parity.metric)} on "
            f"{manifest.parity.images} test images, largest difference of a logit "
            f"{manifest.parity.max_abs_error:.2e}, {predicted}: {out}"
        )
