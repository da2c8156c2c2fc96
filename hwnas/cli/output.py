"""What several verbs print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hwnas.cli.streams import takes_unicode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from hwnas.tasks.figures import ClassificationFigures
    from hwnas.workflows.answers import TrainedAnswer


def print_json(document: object) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=not takes_unicode()))


def print_page(run: Path | None) -> None:
    """Name the page in a folder of a model's figures; nothing without one."""
    if run is not None:
        typer.echo(f"wrote {run / 'report.html'}")


def metric_words(figures: ClassificationFigures | None) -> list[str]:
    """The arguments ``--metric`` and ``--positive`` of what was evaluated; none for the usual metrics."""
    if figures is None or figures.metric in ("top1", "mAP"):
        return []
    if figures.positive is None:
        return ["--metric", figures.metric]
    return ["--metric", figures.metric.removesuffix(f" of {figures.positive}"), "--positive", figures.positive]


def echo_validation(answer: TrainedAnswer) -> None:
    """Print why a training ended early, and the validation of its weights."""
    if answer.stopped:
        typer.echo(answer.stopped)
    if found := answer.validation:
        typer.echo(
            f"largest network after update {found['step']:.0f}: {answer.metric} {found['validation']:.2%} on "
            f"validation images, {found['training']:.2%} on training images"
        )


def adapted_words(adapted: Mapping[str, JsonValue]) -> str:
    """What a training with a method of fine-tuning did."""
    words = f"trained {adapted['trained_parameters']:,} parameters, merged into the weights"
    ranks = adapted.get("ranks")
    return words + (f"; ranks {', '.join(map(str, ranks.values()))}" if isinstance(ranks, dict) else "")
