"""`hwnas elastic`: a trained network as a supernet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options, output
from hwnas.errors import InvalidValue
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.workflows import ElasticAnswer

_SHOWN = 12  # widths and fixed layers that are listed


Network = Annotated[
    str,
    typer.Argument(
        help="timm:NAME; net.py:make, a function that returns a torch module, or a module and its inputs; or "
        "program.pt2 of torch.export.save.",
        metavar="NETWORK",
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="The network's weights: .safetensors, or a state dictionary of torch.save.")
]
Shape = Annotated[
    str | None,
    typer.Option(help="Of an image, 3x224x224; by default that of the network's example.", metavar="CxHxW"),
]
Widths = Annotated[str, typer.Option(help="Shares of each width to choose from, besides the whole.", metavar="SHARES")]
USUAL_WIDTHS = "25%,50%,75%"
Multiple = Annotated[
    int, typer.Option(help="Channels, of which widths are multiples where heads and groups allow it.", min=1)
]
Keep = Annotated[
    list[str] | None,
    typer.Option(help="Layers that keep their width, by name: 'layer4.*'. May be repeated.", metavar="PATTERN"),
]
Blocks = Annotated[bool, typer.Option(help="Whether residual blocks can be left out.")]
Ranks = Annotated[
    str,
    typer.Option(
        help="Ranks of linear layers and 1x1 convolutions to choose from, besides the whole layer: shares of the "
        "smaller dimension, 25%,50%.",
        metavar="SHARES",
    ),
]
Resolutions = Annotated[
    str | None,
    typer.Option(help="Heights of smaller images that the network may take, too: 64,80.", metavar="PIXELS"),
]
Importance = Annotated[
    str,
    typer.Option(
        help="Order of the channels, most important first: l1, bn, taylor, none, or auto for the best of the first "
        "three by the accuracy of some subnets."
    ),
]


def elastic(
    network: Network,
    data: options.DataName,
    out: Annotated[Path, typer.Option(help="Folder for the supernet.")],
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
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Write a trained network as a supernet: its widths, heads and residual blocks become variables.

    Its largest subnet is the network. Every verb that takes a supernet takes the folder; profile it with
    --space FOLDER/network.json.
    """
    from hwnas import workflows

    with shown_progress() as progress:
        answer = workflows.elastic(
            network,
            data,
            out,
            data_path=data_path,
            data_options=options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label),
            weights=weights,
            shape=image_shape(shape),
            widths=shares(widths),
            multiple=multiple,
            keep=keep or (),
            blocks=blocks,
            ranks=shares(ranks, "--ranks"),
            resolutions=heights(resolutions),
            importance=importance,
            seed=seed,
            progress=progress,
        )
    if as_json:
        output.print_json(answer.document())
    else:
        _print(answer)


def image_shape(text: str | None) -> tuple[int, ...] | None:
    """The shape of an image from ``3x224x224``.

    Raises:
        InvalidValue: it has another form.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and part.isascii() and int(part) for part in parts):
        raise InvalidValue(f"--shape is {text!r}; it should be channels, height and width: 3x224x224")
    return tuple(map(int, parts))


def shares(text: str, option: str = "--widths") -> tuple[float, ...]:
    """Shares from ``25%,50%``, the value of an option.

    Raises:
        InvalidValue: it has another form.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(float(part.removesuffix("%")) / (100 if part.endswith("%") else 1))
        except ValueError as error:
            raise InvalidValue(f"{option} has {part!r}; it should be shares: 25%,50%,75%") from error
    return tuple(found)


def heights(text: str | None) -> tuple[int, ...]:
    """Heights of images from ``64,80``.

    Raises:
        InvalidValue: it has another form.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and part.isascii() for part in parts):
        raise InvalidValue(f"--resolutions is {text!r}; it should be heights of images in pixels: 64,80")
    return tuple(map(int, parts))


def _print(answer: ElasticAnswer) -> None:
    typer.echo(
        f"{answer.space}: {answer.networks:.3g} networks, {answer.ops} ops to profile; the largest has "
        f"{answer.macs / 1e6:,.4g} million MACs and {answer.params:,} parameters"
    )
    for group in answer.widths[:_SHOWN]:
        others = len(group.layers) - 1
        tied = f" (and {others} more layer{'s' * (others > 1)})" if others > 0 else ""
        typer.echo(f"  {group.name}{tied}: {', '.join(map(str, group.channels))} channels")
    if len(answer.widths) > _SHOWN:
        typer.echo(f"  and {len(answer.widths) - _SHOWN} more widths")
    for name, ranks in list(answer.ranks.items())[:_SHOWN]:
        typer.echo(f"  {name}: rank {', '.join(map(str, ranks[:-1]))}, or the layer itself")
    if len(answer.ranks) > _SHOWN:
        typer.echo(f"  and {len(answer.ranks) - _SHOWN} more ranks")
    if len(answer.resolutions) > 1:
        typer.echo(f"  images of {', '.join(map(str, answer.resolutions))} pixels")
    if answer.blocks:
        typer.echo(f"  {answer.blocks} residual blocks can be left out")
    for name, why in list(answer.fixed.items())[:_SHOWN]:
        typer.echo(f"  {name} keeps its width: {why}")
    if len(answer.fixed) > _SHOWN:
        typer.echo(f"  and {len(answer.fixed) - _SHOWN} more layers keep their width (--json lists them)")
    if answer.kept_operators:
        typer.echo(f"  what these operators read keeps its width: {', '.join(answer.kept_operators)}")
    judged = ", ".join(f"{measure} {value:.1%}" for measure, value in answer.judged.items())
    typer.echo(
        f"  order of channels: {answer.importance}" + (f" (mean accuracy of some subnets: {judged})" if judged else "")
    )
    typer.echo(
        f"wrote {answer.supernet}; profile it with: hwnas profile --space {answer.supernet}/network.json --target …"
    )
