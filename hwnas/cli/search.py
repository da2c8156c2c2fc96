"""`hwnas search`: the best subnet within budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli import options
from hwnas.shown_progress import INTERRUPTED, shown_progress, stopped_by_ctrl_c
from hwnas.workflows import inputs


def search(
    budget: options.Budgets,
    out: Annotated[Path, typer.Option(help="File for the arch that is found; with --family a folder.")],
    supernet: Annotated[
        Path | None, typer.Option(help="Folder that `hwnas train` wrote; not for differentiable strategies.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What a budget without a name is for; 'this' is the present host; device/* chooses the recipe too.",
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
        Path | None, typer.Option(help="CSV of accuracies to fit instead of evaluated subnets: a column a variable.")
    ] = None,
    subnets: Annotated[
        int, typer.Option(help="Subnets evaluated to fit the accuracy model.", min=8, max=1_000_000)
    ] = 300,
    images: options.Images = 2000,
    candidates: Annotated[int, typer.Option(help="Networks really evaluated at the end.", min=1, max=10_000)] = 20,
    confidence: options.Confidence = None,
    no_margin: options.NoMargin = False,
    family: Annotated[bool, typer.Option("--family", help="A network for each budget, not one for all.")] = False,
    front: Annotated[Path | None, typer.Option(help="Folder for the whole front: CSV, JSON and a picture.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where the milliseconds go, and what more of them would buy.")
    ] = False,
    space: Annotated[str | None, typer.Option(help="Search space of a differentiable strategy.")] = None,
    data: Annotated[str | None, typer.Option(help="Dataset of a differentiable strategy.")] = None,
    data_path: options.DataPath = None,
    fix: options.Fix = None,
    training: Annotated[
        Path | None, typer.Option(help="How a differentiable strategy trains, a TOML file; see docs/search.md.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates, in place of the config's.", min=1)] = None,
    penalty: Annotated[
        str | None,
        typer.Option(help="On latency: linear, log, mul-log, hinge or lagrangian, in place of the config's."),
    ] = None,
    accelerator: options.Accelerator = "auto",
    resume: options.Resume = True,
    tables: options.Tables = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fit an accuracy model on evaluated subnets, search with it, and really evaluate the best candidates.

    With a differentiable strategy, train the weights of a whole space and the probabilities of its choices together,
    and make of them the most probable network that meets the target. Ctrl-C ends a search with the best network so far.
    """
    from hwnas.cli.relaxed import search_relaxed
    from hwnas.errors import InvalidValue, UnknownName
    from hwnas.search import strategy_names
    from hwnas.search.differentiable import METHODS

    held = inputs.held_confidence(confidence, no_margin)
    common: Any = {"target": target, "confidence": held, "tables": tables, "seed": seed, "as_json": as_json}
    if strategy in METHODS:
        if supernet or accuracy or family or front or explain:
            raise InvalidValue(
                f"{strategy} is a differentiable strategy: --supernet, --accuracy, --family, --front and --explain are "
                "not for it"
            )
        search_relaxed(
            strategy,
            space,
            data,
            budget,
            out,
            data_path=data_path,
            fix=fix,
            training=training,
            changes={"steps": steps, "penalty": penalty},
            accelerator=accelerator,
            resume=resume,
            **common,
        )
        return
    if strategy not in strategy_names():
        raise UnknownName("search strategy", strategy, [*strategy_names(), *METHODS])
    if supernet is None or space or data or data_path or fix or training or steps or penalty:
        raise InvalidValue(
            f"{strategy} search takes --supernet, which knows its space and data; --space, --data, --data-path, --fix, "
            "--training, --steps and --penalty are for differentiable strategies"
        )
    _search_supernet(
        supernet,
        budget,
        out,
        strategy,
        accuracy=accuracy,
        subnets=subnets,
        images=images,
        candidates=candidates,
        family=family,
        front=front,
        explain=explain,
        **common,
    )


def _search_supernet(
    supernet: Path,
    budget: list[str],
    out: Path,
    strategy: str,
    *,
    target: str | None,
    accuracy: Path | None,
    subnets: int,
    images: int,
    candidates: int,
    confidence: float | None,
    family: bool,
    front: Path | None,
    explain: bool,
    tables: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Search among the subnets of a trained supernet."""
    from hwnas.accuracy import Evaluator, fit_accuracy, fit_on_subnets
    from hwnas.accuracy.table import read_accuracies
    from hwnas.search import Problem
    from hwnas.search.rerank import choose
    from hwnas.supernet import load_supernet
    from hwnas.workflows import answers as said
    from hwnas.workflows.constraints import asked
    from hwnas.workflows.recipes import choose_recipe

    said.check_places(out, front, family=family)
    net, facts = load_supernet(supernet)
    pictures = inputs.reopen_data(facts)
    wanted = asked(net.space, budget, target, tables=tables, family=family, confidence=confidence)
    own = read_accuracies(accuracy, net.space) if accuracy else None
    evaluator = Evaluator(net, pictures, images=images, seed=seed + 1)
    with (
        shown_progress() as progress,
        evaluator.journal(inputs.evaluations_folder(supernet), facts.weights_sha256) as journal,
    ):
        if own:
            model = fit_accuracy(net.space, *own, seed=seed)
        else:
            model = fit_on_subnets(evaluator, journal, subnets=subnets, seed=seed, progress=progress)
        problems = {
            label: Problem.of(constraints, accuracy=model, seed=seed)
            for label, constraints in wanted.constraints.items()
        }
        how: Any = {"strategy": strategy, "candidates": candidates, "progress": progress}
        with stopped_by_ctrl_c() as stop:
            if wanted.choice:
                choices, left_out = choose_recipe(problems, wanted.targets, evaluator, journal, stop=stop, **how)
                answers = [said.recipe_answer(problems, choices, wanted.skipped | left_out, model)]
            else:
                choices = []
                answers = [
                    said.answer_of(problem, choose(problem, evaluator, journal, stop=stop, **how), model)
                    for problem in problems.values()
                ]
            interrupted = stop()
    files = said.write_answers(out, answers, family=family)  # before anything else can go wrong
    if explain:
        for answer in answers:
            answer["explained"] = said.explained(problems[answer["label"]], answer)
        said.write_answers(out, answers, family=family)
    if front:
        said.write_front(front, problems, choices, answers)
    if as_json:
        options.print_json(answers if family else answers[0])
    else:
        typer.echo(
            "\n".join(line for pair in zip(answers, files, strict=True) for line in said.lines_of(*pair, supernet))
        )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
