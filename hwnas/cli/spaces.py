"""`hwnas spaces`: the known search spaces, and the figures of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options, output

if TYPE_CHECKING:
    from hwnas.workflows.known_spaces import NetworkSize

app = typer.Typer(help="List and show search spaces.", no_args_is_help=True)
_SHOWN = 6  # variables with equal values that are listed by name; --json lists all


@app.command("list")
def list_(as_json: options.AsJson = False) -> None:
    """List the known search spaces with their inputs and options."""
    from hwnas import workflows

    found = workflows.list_spaces()
    if as_json:
        output.print_json(found.document())
        return
    width = max(len(space.space) for space in found.spaces)
    typer.echo(f"{'space':{width}}  {'networks':>8}  {'inputs':>14}  options")
    for space in found.spaces:
        low, high = space.resolution or space.length or (0, 0)
        sizes = f"{low}-{high}" if low < high else str(low)
        inputs = f"{sizes} {'tokens' if space.resolution is None else 'px'}"
        typer.echo(f"{space.space:{width}}  {space.networks:8.3g}  {inputs:>14}  {', '.join(space.options) or 'none'}")
    typer.echo("Options follow the name: mobilenetv3-small+resolution=64,80,96+width=0.5")


@app.command()
def show(
    space: Annotated[
        str, typer.Argument(help="Name of a space, perhaps with options, or a TOML file.", metavar="NAME")
    ],
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    channels: options.Channels = None,
    vocabulary: options.Vocabulary = None,
    classes: options.Classes = None,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print the space as a TOML file with all options, to change and pass on.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Print the variables of a space, the number of its networks, and the sizes of the smallest and the largest."""
    from hwnas import workflows
    from hwnas.spaces.options import values_text

    name = options.space_with(space, resolution, width, kernel_sizes, expansions, aspect)
    if as_toml:
        typer.echo(workflows.space_file(name), nl=False)
        return
    answer = workflows.show_space(name, channels=channels, vocabulary=vocabulary, classes=classes)
    if as_json:
        output.print_json(answer.document())
        return
    lines = [f"{answer.space}: {answer.networks:.3g} networks; {answer.reads}, {answer.classes} classes"]
    for what, network in (("smallest", answer.smallest), ("largest", answer.largest)):
        lines.append(
            f"  {what:9} {network.macs / 1e6:,.4g} million MACs at {_size(network, answer.aspect)}, "
            f"{network.params / 1e6:,.4g} million parameters"
        )
    lines.append("variables")
    names: dict[tuple[int | str, ...], list[str]] = {}
    for variable, choices in answer.variables.items():
        names.setdefault(tuple(choices), []).append(variable)
    for values, same in names.items():
        some = f"{same[0]} to {same[-1]} ({len(same)} variables)" if len(same) > _SHOWN else ", ".join(same)
        lines.append(f"  {some}: {values_text(values)}")
    typer.echo("\n".join(lines))


def _size(network: NetworkSize, aspect: str) -> str:
    """The size of inputs in words."""
    from hwnas.spaces.sides import image_sides

    if network.resolution is None:
        return f"{network.length} tokens"
    height, width = image_sides(network.resolution, aspect)
    return f"{height} pixels" if height == width else f"{height} x {width} pixels (height x width)"
