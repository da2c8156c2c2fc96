"""Answers and files from the results of a search."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hwnas.accuracy import AccuracyModel
from hwnas.accuracy.figures import AccuracyModelFigures, ModelQuality
from hwnas.errors import OutputError
from hwnas.files import write_whole
from hwnas.latency.model import slot_latencies
from hwnas.report.front_files import write_fronts
from hwnas.search import Candidate, Problem, find_front
from hwnas.search.next_steps import next_steps
from hwnas.search.problem import Constraints
from hwnas.search.rerank import Chosen
from hwnas.spaces import Value
from hwnas.workflows.answers import ArchFile, Explanation, NetworkAnswer, RecipeFigures
from hwnas.workflows.recipes import RecipeChoice

Facts = dict[str, object]


def arch_facts(
    wanted: Constraints, arch: Mapping[str, Value], costs: Mapping[str, float], sole: Sequence[str]
) -> Facts:
    """The fields of every arch file.

    Args:
        wanted: the budgets.
        arch: the network.
        costs: name of an objective -> its value.
        sole: names of latency budgets; if there is only one, it is stored for `hwnas export`.
    """
    facts: Facts = {
        "space": wanted.space.name,
        "budgets": dict(wanted.budgets),
        "predicted": dict(costs),
        "arch": dict(arch),
    }
    if len(wanted.budgets) == len(sole) == 1:
        [name] = sole
        facts |= {"target": name, "budget_ms": wanted.budgets[name], "predicted_ms": costs[name]}
    return facts


def network_facts(wanted: Constraints, found: Candidate, accuracy: float, *, proof: str, strategy: str) -> Facts:
    """The fields of every evaluated network."""
    latencies = {o.name: o.latency for o in wanted.objectives if o.latency}
    return {
        **arch_facts(wanted, found.arch, found.costs, list(latencies)),
        "label": ", ".join(wanted.budgets),
        "validation_accuracy": accuracy,
        "sufficient": {o.name: found.costs[o.name] * (1 + o.margin(wanted.confidence)) for o in wanted.budgeted},
        "latency_sources": {name: latency.source for name, latency in latencies.items()},
        "strategy": strategy,
        "proof": proof,
    }


def network_answer(
    problem: Problem, chosen: Chosen, model: AccuracyModel, *, metric: str = "top1", row: int = 0, **more: object
) -> NetworkAnswer:
    """The answer about a network from a search with an accuracy model.

    Args:
        problem: the problem.
        chosen: the evaluated networks.
        model: the accuracy model.
        metric: name of what was evaluated.
        row: index of the network.
        more: further fields of the answer.
    """
    best = chosen.candidates[row]
    figures = {name: ModelQuality(**quality.known()) for name, quality in model.quality.items()}
    return NetworkAnswer.model_validate(
        {
            **network_facts(problem, best, chosen.accuracies[row], proof=chosen.proof, strategy=chosen.found.strategy),
            "metric": metric,
            "predicted_accuracy": best.predicted_accuracy,
            "accuracy_model": AccuracyModelFigures(subnets=model.subnets, predictor=model.predictor.name, **figures),
            **more,
        }
    )


def recipe_answer(
    problems: Mapping[str, Problem],
    choices: list[RecipeChoice],
    left_out: Mapping[str, str],
    model: AccuracyModel,
    *,
    metric: str,
    stopped: bool,
) -> NetworkAnswer:
    """The answer about the best recipe's network, with all recipes; `metric` is the name of what was evaluated."""
    first = choices[0]
    recipes = [
        RecipeFigures(
            target=choice.target.name,
            predicted_ms=choice.chosen.candidates[choice.best].costs[choice.target.name],
            deployed_accuracy=choice.deployed[choice.best],
            change=choice.change,
            arch=dict(choice.chosen.candidates[choice.best].arch),
        )
        for choice in choices
    ]
    return network_answer(
        problems[first.target.name],
        first.chosen,
        model,
        metric=metric,
        row=first.best,
        recipes=recipes,
        recipes_left_out=dict(left_out),
        stopped=stopped,
    )


def explained(problem: Problem, answer: ArchFile) -> dict[str, Explanation]:
    """For each target: milliseconds by slot, and the gain of larger budgets."""
    arch = problem.space.arch(answer.arch)
    [candidate] = problem.candidates(problem.space.encode([arch]))
    return {
        o.name: Explanation(slots_ms=slot_latencies(o.latency, arch), next=next_steps(problem, candidate, o))
        for o in problem.objectives
        if o.latency
    }


def write_front(
    folder: Path, problems: Mapping[str, Problem], choices: list[RecipeChoice], answers: Sequence[ArchFile]
) -> None:
    """The exact front of accuracy and each cost with the first one's unit.

    In a choice among recipes, accuracies include the change by each recipe.

    Raises:
        OutputError: a file cannot be written.
    """
    changes = {choice.target.name: choice.change for choice in choices}
    shown = {
        objective.name: replace(problem, objectives=(objective,), budgets={})
        for label, problem in problems.items()
        for objective in problem.objectives
        if not choices or label in changes
    }
    axis = next(iter(shown.values())).objectives[0]
    shown = {name: problem for name, problem in shown.items() if problem.objectives[0].unit == axis.unit}

    def shifted(name: str, found: list[Candidate]) -> list[Candidate]:
        change = changes.get(name, 0.0)
        return [replace(c, predicted_accuracy=c.predicted_accuracy + change) for c in found]

    fronts = {name: shifted(name, find_front(problem).candidates) for name, problem in shown.items()}
    marked: dict[str, list[Candidate]] = {}
    for answer in answers:
        for name in set(answer.budgets) & set(shown):
            codes = shown[name].space.encode([shown[name].space.arch(answer.arch)])
            marked[name] = shifted(name, shown[name].candidates(codes))
    write_fronts(folder, next(iter(shown.values())).space, fronts, axis, marked=marked)


def check_places(out: Path | None, front: Path | None, *, family: bool) -> None:
    """Check, before long work, that answers and fronts can be written.

    Raises:
        OutputError: a folder is in place of a file, or a file in place of a folder.
    """
    for path in [p for p in (out if family else None, front) if p]:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; {'--family writes' if path == out else '--front writes'} a folder")
    if out and not family and out.is_dir():
        raise OutputError(f"{out} is a folder; use the name of a file for the arch, such as {out / 'arch.json'}")


def answer_files(out: Path, answers: Sequence[NetworkAnswer], *, family: bool) -> list[Path]:
    """The file of each answer: `out` itself, or for a family files in the folder, named by target."""
    return [out / f"{answer.label.replace('/', '-')}.json" if family else out for answer in answers]


def write_arch(file: Path, answer: ArchFile) -> None:
    """Write an answer as an arch file (`hwnas.workflows.ArchFile`).

    Raises:
        OutputError: the file cannot be written.
    """
    write_whole(file, json.dumps(answer.document(), indent=2) + "\n")
