"""`hwnas tables transfer` and `hwnas tables next`: a new target from others' tables and a few measured networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli import options, output
from hwnas.errors import InvalidValue

if TYPE_CHECKING:
    from hwnas.spaces import Space
    from hwnas.workflows import AgainstAnswer, NetworksAnswer, NextAnswer, TransferAnswer

From = Annotated[
    list[str],
    typer.Option(
        "--from",
        help="Tables of other targets: device/recipe with wildcards, devices/PATTERN, a folder, or a CSV file; may be "
        "repeated.",
        metavar="TABLES",
        show_default=False,
    ),
]
Column = Annotated[
    str | None, typer.Option(help="Column of the latencies; latency_ms by default, or the only one.", metavar="NAME")
]


def transfer(
    from_: From,
    measurements: Annotated[
        Path, typer.Option(help="CSV file with the columns arch and latency_ms.", show_default=False)
    ],
    target: options.Target,
    space: options.SpaceName,
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    fix: options.Fix = None,
    channels: options.Channels = None,
    vocabulary: options.Vocabulary = None,
    classes: options.Classes = None,
    column: Column = None,
    method: Annotated[
        str | None,
        typer.Option(help="Method of transfer; chosen by leaving out one source device after the other by default."),
    ] = None,
    tables: options.Tables = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop an older table that was measured or imported.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write the table of a new target from the tables of others and a few whole networks that were timed on it.

    3 measurements are needed, 10 are usual (hwnas tables next chooses them).
    """
    from hwnas import workflows
    from hwnas.workflows.inputs import space_of

    name = options.space_with(space, resolution, width, kernel_sizes, expansions, aspect)
    chosen = space_of(name, options.choices(fix), channels=channels, vocabulary=vocabulary, classes=classes)
    answer = workflows.transfer(
        chosen, target, from_, measurements, column=column, method=method, tables=tables, replace=replace
    )
    if as_json:
        output.print_json(answer.document())
    else:
        print_transfer(answer)


def next_(
    from_: From,
    space: options.SpaceName,
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    fix: options.Fix = None,
    channels: options.Channels = None,
    vocabulary: options.Vocabulary = None,
    classes: options.Classes = None,
    measurements: Annotated[
        Path | None, typer.Option(help="The measurements so far; without them, a first set is chosen.")
    ] = None,
    column: Column = None,
    count: Annotated[
        int | None, typer.Option(help="Networks of the first set; 10 by default.", min=3, max=1000)
    ] = None,
    budget_ms: Annotated[
        list[float] | None,
        typer.Option(help="With --measurements: latency budget of the decision; may be repeated.", min=0),
    ] = None,
    seed: options.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file for the networks, with an empty latency_ms.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Choose the networks to measure on a new target.

    Without measurements: a first set that determines the latencies of all networks best. With them: the one network
    that would change the decision most, i.e. the network with the most MACs within each budget; none if it is settled.
    """
    from hwnas import workflows
    from hwnas.workflows.inputs import space_of

    name = options.space_with(space, resolution, width, kernel_sizes, expansions, aspect)
    chosen = space_of(name, options.choices(fix), channels=channels, vocabulary=vocabulary, classes=classes)
    answer = workflows.next_networks(
        chosen,
        from_,
        measurements=measurements,
        column=column,
        count=count,
        budgets_ms=budget_ms or (),
        seed=seed,
        out=out,
    )
    if as_json:
        output.print_json(answer.document())
    else:
        _print_next(answer)


def networks_of(files: Sequence[Path], space: str | None, given: Mapping[str, Any]) -> Space:
    """The space of a file of networks to import.

    Args:
        files: the files; it should be one.
        space: name of the space.
        given: values of the options of a space, by parameter.

    Raises:
        InvalidValue: the space is missing, or there are several files.
    """
    from hwnas.workflows.inputs import space_of

    if space is None:
        raise InvalidValue("--format networks needs --space, the space of the networks (hwnas spaces list)")
    if len(files) > 1:
        raise InvalidValue(f"--format networks reads one file, not {len(files)}; join the rows of a target in one")
    named = (given[each] for each in ("resolution", "width", "kernel_sizes", "expansions", "aspect"))
    sizes = {each: given[each] for each in ("channels", "vocabulary", "classes")}
    return space_of(options.space_with(space, *named), options.choices(given["fix"]), **sizes)


def print_imported(answer: NetworksAnswer, *, as_json: bool) -> None:
    """Print the result of an import of whole networks."""
    if as_json:
        output.print_json(answer.document())
        return
    typer.echo(
        f"{answer.networks} networks of {answer.space} on {answer.target}; their ops were fitted, with a held-out "
        f"error of {answer.held_out_mape:.2%}."
    )
    if answer.failed:
        typer.echo(f"{answer.failed} measurements failed and were left out.")
    typer.echo(f"Table: {answer.table} ({answer.rows} rows)")


def print_transfer(answer: TransferAnswer) -> None:
    """Print the result of a transfer."""
    typer.echo(
        f"{answer.target}: {answer.space} from {len(answer.sources)} tables and {answer.networks} measured networks, "
        f"whose noise is about {answer.noise:.1%}.\n"
        f"Method: {answer.method}. On sources that were left out:"
    )
    for one in answer.methods:
        typer.echo(f"  {one.method:<18} Spearman {one.spearman:.3f}, MAPE {one.mape:.1%}")
    typer.echo(
        f"Upper bound at 90% confidence: {answer.upper_margin:+.1%}.\nTable: {answer.table} ({answer.rows} rows)"
    )


def print_against(answer: AgainstAnswer) -> None:
    """Print predictions beside measurements in a file."""
    typer.echo(
        f"{answer.networks} networks of {answer.space} on {answer.target}\n"
        f"  MAPE {answer.mape:.2%}, bias {answer.bias:+.2%}, within 10% {answer.within_10pct:.1%}\n"
        f"  Spearman {answer.spearman:.3f}, Kendall τ {answer.kendall_tau:.3f}"
    )
    if answer.below_upper is not None:
        typer.echo(f"  {answer.below_upper:.1%} lie below the upper bound at {answer.confidence:.0%} confidence")
    if answer.failed:
        typer.echo(f"  {answer.failed} measurements failed and were left out.")
    if answer.repeated:
        typer.echo(f"  {answer.repeated} networks were measured several times, {answer.disagreement:.1%} apart at most")


def _print_next(answer: NextAnswer) -> None:
    from hwnas.latency.transfer.decision import SETTLED

    for one in answer.found:
        values = "none of the candidates" if one.arch is None else " ".join(f"{k}={v}" for k, v in one.arch.items())
        typer.echo(f"within {one.budget_ms:g} ms: {values}")
    if answer.share is not None:
        typer.echo(f"It is the best in at least {answer.share:.0%} of the latencies that the measurements allow.")
    if not answer.networks:
        settled = answer.share is None or answer.share >= SETTLED
        typer.echo(
            "The decision is settled: no measurement is needed."
            if settled
            else "No candidate is left to measure, but the decision is not settled: the measurements are too noisy."
        )
    for arch in answer.networks:
        typer.echo("measure " + " ".join(f"{name}={value}" for name, value in arch.items()))
    if answer.out:
        typer.echo(f"Written to {answer.out}; fill in latency_ms, in milliseconds.")
