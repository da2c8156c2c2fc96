"""`hwnas search`: the best subnet within a latency budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options
from hwnas.cli.progress import shown_progress


def search(
    supernet: Annotated[Path, typer.Option(help="Folder that `hwnas train` wrote.")],
    target: options.Target,
    budget: Annotated[str, typer.Option(help="Latency: 0.8ms, or 50% of the largest network's.")],
    out: Annotated[Path, typer.Option(help="File for the arch that is found.")],
    strategy: Annotated[str, typer.Option(help="exact or random.")] = "exact",
    subnets: Annotated[int, typer.Option(help="Subnets evaluated to fit the accuracy model.", min=8)] = 200,
    images: Annotated[int, typer.Option(help="Validation images an evaluation takes.", min=1)] = 2000,
    candidates: Annotated[int, typer.Option(help="Networks really evaluated at the end.", min=1)] = 20,
    confidence: Annotated[
        float | None,
        typer.Option(help="With which a measurement shall keep the budget.", min=0.5, max=0.999, show_default="0.95"),
    ] = None,
    no_margin: Annotated[
        bool,
        typer.Option("--no-margin", help="Hold the prediction itself below the budget, as imported tables need it."),
    ] = False,
    tables: options.Tables = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fit an accuracy model on evaluated subnets, search with it, and really evaluate the best candidates."""
    import numpy as np

    from hwnas.accuracy import Evaluator, fit_accuracy
    from hwnas.errors import InvalidValue, UnknownName
    from hwnas.search import STRATEGIES, Problem, check_feasible, parse_budget, solve
    from hwnas.supernet import load_supernet
    from hwnas.targets import resolve_target, write_whole

    if strategy not in STRATEGIES:
        raise UnknownName("search strategy", strategy, STRATEGIES)
    if no_margin and confidence is not None:
        raise InvalidValue(f"give --confidence or --no-margin, not both (--confidence is {confidence})")
    held = None if no_margin else 0.95 if confidence is None else confidence
    wanted = resolve_target(target)
    net, facts = load_supernet(supernet)
    data, space = options.reopen_data(facts), net.space
    latency = options.latency_model(wanted, tables, space)
    budget_ms = parse_budget(budget, latency)
    check_feasible(latency, budget_ms, held)
    codes = np.unique(space.sample(subnets, seed=seed), axis=0)
    evaluator = Evaluator(net, data, images=images, seed=seed + 1)
    with shown_progress() as progress, evaluator.journal(supernet, facts.weights_sha256) as journal:
        accuracies = evaluator.accuracies(space.decode(codes), journal, what="evaluating subnets", progress=progress)
        accuracy, _ = fit_accuracy(space, codes, np.array(accuracies))
        problem = Problem(space=space, accuracy=accuracy, latency=latency, budget_ms=budget_ms, confidence=held)
        found = solve(problem, strategy, candidates=candidates, seed=seed)
        evaluated = evaluator.accuracies(
            [c.arch for c in found], journal, what="evaluating candidates", progress=progress
        )
    best = int(np.argmax(evaluated))
    answer = {
        "space": space.name,
        "target": wanted.name,
        "budget_ms": budget_ms,
        "arch": dict(found[best].arch),
        "predicted_ms": found[best].predicted_ms,
        "latency_source": latency.source,
        "validation_accuracy": evaluated[best],
    }
    write_whole(out, json.dumps(answer, indent=2) + "\n")
    if as_json:
        options.print_json(answer)
    else:
        typer.echo(
            f"{evaluated[best]:.2%} on validation, predicted {found[best].predicted_ms:.4g} ms of {budget_ms:.4g} ms "
            f"(latencies of ops: {latency.source})\n"
            f"Arch: {out}\n"
            f"Export it with: hwnas export {out} --supernet {supernet} --target {target} --out BUNDLE"
        )
