"""From what a search found to its answers, and from these to files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hwnas.accuracy import AccuracyModel
from hwnas.errors import OutputError
from hwnas.files import write_whole
from hwnas.latency.model import slot_latencies
from hwnas.report.front_files import write_fronts
from hwnas.search import Candidate, Problem, find_front
from hwnas.search.next_steps import next_steps
from hwnas.search.problem import Constraints
from hwnas.search.rerank import Chosen
from hwnas.workflows.answers import (
    AccuracyModelFigures,
    ArchFile,
    Explanation,
    ModelQuality,
    NetworkAnswer,
    RecipeFigures,
)
from hwnas.workflows.recipes import RecipeChoice

Facts = dict[str, object]


def arch_facts(wanted: Constraints, arch: Mapping[str, int], costs: Mapping[str, float], sole: Sequence[str]) -> Facts:
    """What every file of an arch says.

    Args:
        wanted: the budgets.
        arch: the network.
        costs: name of an objective -> its value.
        sole: names of the budgets that count as a latency for `hwnas export`; if it is the only one, it is named.
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
    """What is said of any network that was evaluated."""
    latencies = {o.name: o.latency for o in wanted.objectives if o.latency}
    return {
        **arch_facts(wanted, found.arch, found.costs, list(latencies)),
        "label": ", ".join(wanted.budgets),
        "validation_accuracy": accuracy,
        "latency_sources": {name: latency.source for name, latency in latencies.items()},
        "strategy": strategy,
        "proof": proof,
    }


def network_answer(
    problem: Problem, chosen: Chosen, model: AccuracyModel, *, row: int = 0, **more: object
) -> NetworkAnswer:
    """The answer on a network that an accuracy model led to.

    Args:
        problem: what was asked.
        chosen: networks that were evaluated.
        model: the accuracy model.
        row: which of the networks.
        more: further fields of the answer.
    """
    best = chosen.candidates[row]
    figures = {name: ModelQuality(**quality.known()) for name, quality in model.quality.items()}
    return NetworkAnswer.model_validate(
        {
            **network_facts(problem, best, chosen.accuracies[row], proof=chosen.proof, strategy=chosen.found.strategy),
            "predicted_accuracy": best.predicted_accuracy,
            "accuracy_model": AccuracyModelFigures(subnets=model.subnets, **figures),
            **more,
        }
    )


def recipe_answer(
    problems: Mapping[str, Problem],
    choices: list[RecipeChoice],
    left_out: Mapping[str, str],
    model: AccuracyModel,
    *,
    stopped: bool,
) -> NetworkAnswer:
    """The answer on the best recipe's network, with all recipes beside it."""
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
        row=first.best,
        recipes=recipes,
        recipes_left_out=dict(left_out),
        stopped=stopped,
    )


def explained(problem: Problem, answer: ArchFile) -> dict[str, Explanation]:
    """For each target: milliseconds by slot, and what more of them would buy."""
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
    """The exact front of accuracy and every cost that has the first one's unit, each by itself.

    In a choice of recipes with what each of them changes in accuracy.

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
        raise OutputError(f"{out} is a folder; give the name of a file for the arch, such as {out / 'arch.json'}")


def answer_files(out: Path, answers: Sequence[NetworkAnswer], *, family: bool) -> list[Path]:
    """The file of each answer: `out` itself, or in a folder, named by target, for a family."""
    return [out / f"{answer.label.replace('/', '-')}.json" if family else out for answer in answers]


def write_arch(file: Path, answer: ArchFile) -> None:
    """Write an answer as an arch file (`hwnas.workflows.ArchFile`).

    Raises:
        OutputError: the file cannot be written.
    """
    write_whole(file, json.dumps(answer.document(), indent=2) + "\n")
