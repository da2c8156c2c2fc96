"""`hwnas shrink`: a trained network, made to fit a latency budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.cli.bench import FAIL_OVER_BUDGET
from hwnas.cli.compile import DryRun, From, fail_over, run_job
from hwnas.cli.elastic import (
    USUAL_WIDTHS,
    Blocks,
    Importance,
    Keep,
    Multiple,
    Network,
    Ranks,
    Resolutions,
    Shape,
    Weights,
    Widths,
    heights,
    image_shape,
    shares,
)


def shrink(
    network: Network,
    data: options.DataName,
    target: Annotated[
        list[str], typer.Option(help="device/recipe; the device 'this' is the present host. May be repeated.")
    ],
    budget: Annotated[str, typer.Option(help="Latency on every target: 5ms, or 50% of the network's.")],
    out: Annotated[Path, typer.Option(help="Output folder; the bundles are in its folder bundles.")],
    data_path: options.DataPath = None,
    channels: options.DataChannels = None,
    split: options.DataSplit = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    skip_bad: options.SkipBad = False,
    data_options: options.DataOptionsFile = None,
    weights: Weights = None,
    shape: Shape = None,
    widths: Widths = USUAL_WIDTHS,
    multiple: Multiple = 8,
    keep: Keep = None,
    blocks: Blocks = True,
    ranks: Ranks = "",
    resolutions: Resolutions = None,
    importance: Importance = "auto",
    epochs: Annotated[
        float, typer.Option(help="Passes over the training images with which the network found is fine-tuned.", min=0)
    ] = 10,
    learning_rate: Annotated[float, typer.Option(help="Peak rate of the fine-tuning.")] = 0.01,
    training: Annotated[
        Path | None,
        typer.Option(help="Training config (TOML), with which all subnets are trained before the search."),
    ] = None,
    metric: options.Metric = None,
    positive: options.Positive = None,
    seed: options.Seed = 0,
    dry_run: DryRun = False,
    again: From = None,
    fail_over_budget: Annotated[bool, typer.Option("--fail-over-budget", help=FAIL_OVER_BUDGET)] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a trained network fit a latency budget: trace, profile, search, fine-tune, export, re-benchmark, report.

    Finished stages are reused; a killed run resumes. It is a job with [model] (hwnas compile).
    """
    from hwnas.files import checked_spec
    from hwnas.pipeline import Job
    from hwnas.supernet import read_training

    read = options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label)
    config = read_training(training) if training else None
    job = checked_spec(
        Job,
        {
            "schema": 1,
            "targets": target,
            "budget": budget,
            "seed": seed,
            "model": {
                "network": _absolute(network),
                "weights": str(weights.absolute()) if weights else None,
                "shape": list(sides) if (sides := image_shape(shape)) else None,
                "widths": list(shares(widths)),
                "multiple": multiple,
                "keep": keep or [],
                "blocks": blocks,
                "ranks": list(shares(ranks, "--ranks")),
                "resolutions": list(heights(resolutions)),
                "importance": importance,
                "train": config is not None,
            },
            "data": {
                "name": data,
                "path": str(data_path.absolute()) if data_path else None,
                **read.model_dump(exclude_none=True),
            },
            "training": config.model_dump(by_alias=True) if config else {},
            "accuracy": {"metric": metric, "positive": positive},
            "finetune": {"epochs": epochs, "learning_rate": learning_rate},
        },
        "the options of hwnas shrink",
    )
    report = run_job(job, out, {}, dry_run, again, as_json)
    if report and fail_over_budget:
        fail_over(report["targets"])


def _absolute(network: str) -> str:
    """The name of a network, independent of the current folder."""
    from hwnas.pipeline.job import absolute_network

    return absolute_network(network, Path())
