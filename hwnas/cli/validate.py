"""`hwnas validate`: compare predictions with new measurements."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import measured, options
from hwnas.cli.transfer import Column, print_against
from hwnas.errors import InvalidValue
from hwnas.shown_progress import shown_progress

if TYPE_CHECKING:
    from hwnas.spaces import Space
    from hwnas.workflows import KernelsValidationAnswer, ValidationAnswer

_NETWORKS = 40


def validate(
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
    networks: Annotated[int, typer.Option(help="New networks to measure.", min=2, max=10_000)] = _NETWORKS,
    seed: options.Seed = 0,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Instead of a space: the target's table of kernels.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(help="Measure nothing: compare with a CSV file of networks and latencies.", metavar="FILE.csv"),
    ] = None,
    column: Column = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure networks that the fit did not use, twice, and compare them with the predictions.

    The figures are stored in the table's manifest. If the machine is too noisy, nothing is stored.
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
        "--against": against,
    }
    if against is not None and (networks, seed) != (_NETWORKS, 0):
        raise InvalidValue("--networks and --seed are for new measurements, and not for --against")
    if column is not None and against is None:
        raise InvalidValue("--column is for --against")
    space = measured.required_space(space, kernels=kernels, of_spaces=of_spaces)
    if space is None:
        answers = []
        for one in target:
            with shown_progress() as progress:
                answers.append(
                    workflows.validate_kernels(one, networks=networks, tables=tables, seed=seed, progress=progress)
                )
        measured.print_answers(answers, target, _print_kernels, as_json=as_json)
        return
    name = options.space_with(space, resolution, width, kernel_sizes, expansions, aspect)
    chosen = space_of(name, options.choices(fix), channels=channels, vocabulary=vocabulary, classes=classes)
    if against is not None:
        compared = [workflows.validate_against(chosen, one, against, column=column, tables=tables) for one in target]
        measured.print_answers(compared, target, print_against, as_json=as_json)
        return
    with shown_progress() as progress:
        found, failed = workflows.validate_all(
            chosen, target, tables=tables, networks=networks, seed=seed, progress=progress
        )
    measured.print_answers(found, target, partial(_print, chosen), as_json=as_json)
    measured.raise_last(failed)


def _print(chosen: Space, answer: ValidationAnswer) -> None:
    lines = [
        f"{answer.networks} fresh networks of {answer.space} on {answer.target}; the machine ran at {answer.speed:.1%} "
        "of its speed in the profile, which is corrected for",
        f"  MAPE         {answer.mape:7.2%}   noise floor {answer.noise_floor:.2%} (two measurements)",
        f"  within 5%    {answer.within_5pct:7.1%}   within 10%  {answer.within_10pct:.1%}",
        f"  Kendall τ    {answer.kendall_tau:7.3f}   two measurements {answer.kendall_tau_repeat:.3f}",
    ]
    if answer.below_upper is not None:
        lines.append(
            f"  upper bound  {answer.below_upper:7.1%}   lie below it, at {answer.confidence:.0%} confidence "
            f"{answer.upper_margin:+.2%} over the prediction"
        )
    lines.append("others, fitted on the same networks:")
    lines += [f"  {name:<18} {b.mape:7.2%} MAPE, τ {b.kendall_tau:.3f}" for name, b in answer.baselines.items()]
    lines.append("worst predicted:")
    for one in answer.worst:
        values = " ".join(f"{name}={value}" for name, value in chosen.describe(one.arch).items())
        largest = sorted(one.slots_ms.items(), key=lambda item: -item[1])[:3]
        parts = ", ".join(f"{name} {ms:.4g}" for name, ms in largest)
        lines.append(f"  {one.relative_error:+.1%}  {sum(one.slots_ms.values()):.4g} ms (most in {parts}): {values}")
    typer.echo("\n".join(lines))


def _print_kernels(answer: KernelsValidationAnswer) -> None:
    below = "" if answer.below_upper is None else f", {answer.below_upper:.1%} below the upper bound"
    typer.echo(
        f"{answer.networks} new networks on {answer.target}; the machine ran at {answer.speed:.1%} of its speed in the "
        "profile, which is corrected for\n"
        f"  MAPE {answer.mape:.2%} (noise floor {answer.noise_floor:.2%}, two measurements), within 10% "
        f"{answer.within_10pct:.1%}, Kendall τ {answer.kendall_tau:.3f}{below}"
    )
