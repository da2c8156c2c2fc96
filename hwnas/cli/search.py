"""`hwnas search`: the best subnet within budgets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli import options, output
from hwnas.cli.networks import lines_of, relaxed_lines
from hwnas.shown_progress import INTERRUPTED, shown_progress, stopped_by_ctrl_c


def search(
    budget: options.Budgets,
    out: Annotated[Path, typer.Option(help="File for the resulting arch; with --family a folder.")],
    supernet: Annotated[
        Path | None, typer.Option(help="Folder from `hwnas train`; not for differentiable strategies.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Target of a budget without a name; 'this' is the present host; device/* also chooses the recipe.",
            metavar="DEVICE/RECIPE",
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="{strategies}; or differentiable, with --space and --data: darts, "
            "darts-second-order, pc-darts, gdas, snas, proxyless, fbnet or fairnas."
        ),
    ] = "exact",
    accuracy: Annotated[
        Path | None,
        typer.Option(help="CSV of accuracies to fit instead of evaluated subnets: one column per variable."),
    ] = None,
    subnets: Annotated[
        int, typer.Option(help="Subnets evaluated to fit the accuracy model.", min=8, max=1_000_000)
    ] = 300,
    images: options.Images = 2000,
    calibration_images: options.Calibration = 2000,
    metric: options.Metric = None,
    positive: options.Positive = None,
    candidates: Annotated[int, typer.Option(help="Networks to evaluate at the end.", min=1, max=10_000)] = 20,
    predictor: Annotated[
        str, typer.Option(help="Predictor that re-ranks the networks of the search: {predictors}.")
    ] = "ensemble",
    acquisition: Annotated[
        str,
        typer.Option(
            help="Which of them to evaluate first: mean, ei (expected improvement) or ucb (mean + one sigma)."
        ),
    ] = "mean",
    confidence: options.Confidence = None,
    no_margin: options.NoMargin = False,
    family: Annotated[bool, typer.Option("--family", help="One network per budget instead of one for all.")] = False,
    front: Annotated[Path | None, typer.Option(help="Folder for the whole front: CSV, JSON and a picture.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show where the milliseconds go, and the gain of larger budgets.")
    ] = False,
    space: Annotated[
        str | None, typer.Option(help="Search space of a differentiable strategy, or a TOML file.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a supernet whose space and weights a differentiable strategy starts from, such as one of "
            "`hwnas hybrid`; in place of --space."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Dataset of a differentiable strategy.")] = None,
    data_path: options.DataPath = None,
    resolution: options.Resolution = None,
    width: options.Width = None,
    kernel_sizes: options.KernelSizes = None,
    expansions: options.Expansions = None,
    aspect: options.Aspect = None,
    channels: options.DataChannels = None,
    split: options.DataSplit = None,
    labels: options.Labels = None,
    multi_label: options.MultiLabel = False,
    skip_bad: options.SkipBad = False,
    data_options: options.DataOptionsFile = None,
    fix: options.Fix = None,
    training: Annotated[
        Path | None, typer.Option(help="Config of a differentiable strategy, a TOML file; see docs/search.md.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates, instead of the config's.", min=1)] = None,
    penalty: Annotated[
        str | None,
        typer.Option(help="Latency penalty instead of the config's: linear, log, mul-log, hinge or lagrangian."),
    ] = None,
    accelerator: options.Accelerator = "auto",
    resume: options.Resume = True,
    tables: options.Tables = None,
    engine: options.EngineName = "serial",
    workers: options.Workers = None,
    address: options.Address = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fit an accuracy model on evaluated subnets, search with it, and evaluate the best candidates.

    A differentiable strategy trains the weights of a whole space together with the probabilities of its choices, and
    returns the most probable network that meets the target. Ctrl-C ends a search with the best network so far.
    """
    from hwnas import workflows
    from hwnas.data.options import DataOptions
    from hwnas.engines import EngineConfig
    from hwnas.errors import InvalidValue, UnknownName
    from hwnas.search import strategy_names
    from hwnas.search.differentiable import METHODS
    from hwnas.workflows.networks import answer_files

    common: Any = {
        "budget": budget,
        "target": target,
        "confidence": options.held_confidence(confidence, no_margin),
        "tables": tables,
        "seed": seed,
        "stopping": stopped_by_ctrl_c,
    }
    how = options.data_options(data_options, channels, split, labels, skip_bad, multi_label=multi_label)
    where = options.engine(engine, workers, address)
    if strategy in METHODS:
        ranked = (predictor, acquisition) != ("ensemble", "mean")
        if supernet or accuracy or family or front or explain or ranked or where != EngineConfig():
            raise InvalidValue(
                f"{strategy} is a differentiable strategy, which does not support --supernet, --accuracy, --family, "
                "--front, --explain, --predictor, --acquisition and --engine"
            )
        if (space is None and init is None) or data is None:
            raise InvalidValue(
                f"{strategy} trains its own weights: use --space, or --init for those that it starts from, and --data "
                "(not --supernet)"
            )
        space = options.space_or_none(space, resolution, width, kernel_sizes, expansions, aspect)
        with shown_progress() as progress:
            found = workflows.search_differentiably(
                strategy,
                space,
                data,
                out,
                init=init,
                data_path=data_path,
                data_options=how,
                fix=options.choices(fix),
                training=training,
                steps=steps,
                penalty=penalty,
                accelerator=accelerator,
                resume=resume,
                progress=progress,
                **common,
            )
        start = ["--space", space] if space is not None else ["--init", str(init)]
        images_of = ["--data", data, *(["--data-path", str(data_path)] if data_path else [])]
        _print(found.document(), relaxed_lines(found, out, start, images_of), as_json, stopped=found.stopped)
        return
    if strategy not in strategy_names():
        raise UnknownName("search strategy", strategy, [*strategy_names(), *METHODS])
    other = (space, init, resolution, width, kernel_sizes, expansions, aspect, data, fix, training, steps, penalty)
    if supernet is None or how != DataOptions() or any(given not in (None, []) for given in other):
        raise InvalidValue(
            f"{strategy} search needs --supernet, which defines space and data; --space, --init and --data with their "
            "options, --fix, --training, --steps and --penalty are for differentiable strategies"
        )
    with shown_progress() as progress:
        answer = workflows.search(
            supernet,
            data_path=data_path,
            strategy=strategy,
            accuracy=accuracy,
            subnets=subnets,
            images=images,
            calibration_images=calibration_images,
            metric=metric,
            positive=positive,
            candidates=candidates,
            predictor=predictor,
            acquisition=acquisition,
            family=family,
            explain=explain,
            front=front,
            out=out,
            engine=where,
            progress=progress,
            **common,
        )
    documents = [network.document() for network in answer.networks]
    files = answer_files(out, answer.networks, family=family)
    lines = [
        line
        for network, file in zip(answer.networks, files, strict=True)
        for line in lines_of(network, file, supernet, tables)
    ]
    _print(documents if family else documents[0], lines, as_json, stopped=answer.stopped)


def _print(document: object, lines: Iterable[str], as_json: bool, *, stopped: bool) -> None:
    """Print an answer; exit as after Ctrl-C if the search was stopped early."""
    if as_json:
        output.print_json(document)
    else:
        typer.echo("\n".join(lines))
    if stopped:
        raise typer.Exit(INTERRUPTED)
