"""`hwnas profile`: measure a space's ops on a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import measured, options
from hwnas.cli.transfer import print_transfer
from hwnas.errors import InvalidValue
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.spaces import Space
    from hwnas.workflows import KernelsAnswer, ProfileAnswer


def profile(
    target: options.Targets,
    space: options.OptionalSpaceName = None,
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    fix: options.Fix = None,
    channels: options.Channels = None,
    vocabulary: options.Vocabulary = None,
    classes: options.Classes = None,
    tables: options.Tables = None,
    networks: Annotated[
        int, typer.Option(help="Calibration networks, timed to fit the context terms.", min=4, max=10_000)
    ] = 16,
    bound_networks: Annotated[
        int,
        typer.Option(help="Further networks for upper bounds; n allow a confidence of n / (n + 1).", min=0, max=10_000),
    ] = 24,
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Time only the ops that the table lacks.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Drop an older table instead of adding to it.")] = False,
    kernels: Annotated[
        bool,
        typer.Option("--kernels", help="Instead of a space: kernels of networks of any kind, for `hwnas predict`."),
    ] = False,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="With --kernels: a model whose kernels are measured, too. With --few-shot: tables of other targets, "
            "as for hwnas tables transfer --from. May be repeated.",
            metavar="MODEL|TABLES",
        ),
    ] = None,
    few_shot: Annotated[
        int | None,
        typer.Option(help="Instead of ops: time this many chosen networks, and transfer the tables of --like.", min=3),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="With --kernels: time that it takes, about; 15 by default.", min=0)
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Time every distinct op of a space on a target and fit the latency model. Or, with --kernels, kernels.

    Targets of different machines (hwnas devices connect) are measured at the same time.

    A killed run resumes. Rows of an older table for the same target are kept unless they are measured again. If the
    machine is too noisy, nothing is written.
    """
    from hwnas import workflows
    from hwnas.workflows.inputs import space_of

    of_spaces = {
        "--resolution": resolution,
        "--width": width,
        "--kernel-sizes": kernel_sizes,
        "--expansions": expansions,
        "--aspect": aspect,
        "--fix": fix,
        "--channels": channels,
        "--vocabulary": vocabulary,
        "--classes": classes,
        "--only-missing": only_missing,
        "--replace": replace,
    }
    space = measured.required_space(space, kernels=kernels, of_spaces=of_spaces)
    if space is None:
        if few_shot is not None:
            raise InvalidValue("use --kernels or --few-shot, not both")
        _profile_kernels(target, [Path(model) for model in like or []], minutes, tables, as_json=as_json)
        return
    if minutes is not None:
        raise InvalidValue("--minutes is for --kernels")
    if (few_shot is None) != (not like):
        raise InvalidValue(
            "--like is for --kernels (a model) and --few-shot (tables of other targets, such as 'devices/*'), and "
            "--few-shot needs it"
        )
    name = options.space_with(space, resolution, width, kernel_sizes, expansions, aspect)
    chosen = space_of(name, options.choices(fix), channels=channels, vocabulary=vocabulary, classes=classes)
    if few_shot is not None:
        if only_missing:
            raise InvalidValue("--only-missing is for a profile of ops, not for --few-shot")
        _profile_few_shot(chosen, target, few_shot, like or [], tables, replace=replace, as_json=as_json)
        return
    with shown_progress() as progress:
        answers, failed = workflows.profile_all(
            chosen,
            target,
            tables=tables,
            networks=networks,
            bound_networks=bound_networks,
            only_missing=only_missing,
            replace=replace,
            progress=progress,
        )
    measured.print_answers(answers, target, _print, as_json=as_json)
    measured.raise_last(failed)


def _profile_few_shot(
    space: Space, targets: list[str], count: int, like: list[str], tables: Path | None, *, replace: bool, as_json: bool
) -> None:
    """Time a few networks on each target, and transfer the tables of others to it."""
    from hwnas import workflows

    answers = []
    for target in targets:
        with shown_progress() as progress:
            answers.append(
                workflows.profile_few_shot(
                    space, target, like, count=count, tables=tables, replace=replace, progress=progress
                )
            )
    measured.print_answers(answers, targets, print_transfer, as_json=as_json)


def _profile_kernels(
    targets: list[str], like: list[Path], minutes: float | None, tables: Path | None, *, as_json: bool
) -> None:
    """Measure kernels on each target."""
    from hwnas import workflows

    answers = []
    for target in targets:
        with shown_progress() as progress:
            answers.append(
                workflows.profile_kernels(target, like=like, minutes=minutes, tables=tables, progress=progress)
            )
    measured.print_answers(answers, targets, _print_kernels, as_json=as_json)


def _print_kernels(answer: KernelsAnswer) -> None:
    found = answer.validation
    typer.echo(
        f"{answer.kernels:,} kernels of {len(answer.kinds)} kinds on {answer.target}, in {answer.networks} "
        f"networks (without {answer.profiler_ms * 1e3:.1f} µs per layer that the runtime's profiler adds).\n"
        f"Predictions of these networks without their own kernels: MAPE {found.mape:.1%}, within 10% "
        f"{found.within_10pct:.0%}, Kendall τ {found.kendall_tau:.3f}.\n"
        f"Table: {answer.table}"
    )


def _print(answer: ProfileAnswer) -> None:
    if answer.up_to_date:
        typer.echo("No op and no fit was missing, so nothing was measured. The table was created as follows.")
    for what, number in (("ops", answer.ops), ("networks", answer.calibration_networks + answer.bound_networks)):
        timed = answer.measurement[what]
        typer.echo(
            f"{number} {what} of {answer.space} on {answer.target} in {timed['passes']} passes, which agree within "
            f"{float(timed['disagreement']):.1%}; the machine drifted by up to {float(timed['drift']):.1%}."
        )
    typer.echo(
        f"Context: {len(answer.terms)} terms from {answer.calibration_networks} networks, held-out error "
        f"{answer.held_out_mape:.2%}.\n"
        f"Table: {answer.table}"
    )
