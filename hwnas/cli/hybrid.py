"""`hwnas hybrid`: stages of several trained networks as a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options, output
from hwnas.cli.elastic import Shape, image_shape
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.workflows import HybridAnswer

_FORMS = "timm:NAME; net.py:make, a function that returns a torch module; or program.pt2 of torch.export.save"


def hybrid(
    trunk: Annotated[
        str,
        typer.Argument(
            help=f"The network whose weights are trained: {_FORMS}. It has as many outputs as the data have classes.",
            metavar="TRUNK",
        ),
    ],
    expert: Annotated[
        list[str],
        typer.Option(
            help="A network whose stages, frozen, can replace the trunk's: as TRUNK, with any number of outputs. "
            "May be repeated.",
            metavar="NETWORK",
        ),
    ],
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
    data_path: options.DataPath = None,
    channels: options.DataChannels = None,
    split: options.DataSplit = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    skip_bad: options.SkipBad = False,
    data_options: options.DataOptionsFile = None,
    weights: Annotated[Path | None, typer.Option(help="The trunk's weights: .safetensors, or of torch.save.")] = None,
    expert_weights: Annotated[
        list[Path] | None, typer.Option(help="An expert's weights; given once for each --expert, in their order.")
    ] = None,
    shape: Shape = None,
    as_json: options.AsJson = False,
) -> None:
    """Write a supernet whose stages are those of several trained networks.

    Each subnet has one network's stage in each place. Every verb that takes a supernet takes the folder; profile it
    with --space FOLDER/network.json.
    """
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.hybrid(
            trunk,
            expert,
            data,
            out,
            data_path=data_path,
            data_options=options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label),
            weights=weights,
            expert_weights=expert_weights or (),
            shape=image_shape(shape),
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
    else:
        _print(answer)


def _print(answer: HybridAnswer) -> None:
    typer.echo(
        f"{answer.space}: {answer.networks:,} networks of {answer.trunk} and {', '.join(answer.experts)}, {answer.ops} "
        "ops to profile"
    )
    for stage in answer.stages:
        costs = ", ".join(f"{name} {macs / 1e6:,.4g}" for name, macs in stage.macs.items())
        typer.echo(f"  {stage.variable} -> {'x'.join(map(str, stage.maps))}: million MACs {costs}")
    typer.echo(
        f"wrote {answer.supernet}; train its projections and the trunk with: hwnas train --init {answer.supernet} "
        "--data …"
    )
