"""What `hwnas search` and `hwnas study` answer: as JSON values, as files, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hwnas.accuracy import AccuracyModel
from hwnas.errors import OutputError
from hwnas.files import write_whole
from hwnas.latency.model import slot_latencies
from hwnas.report.front_files import write_fronts
from hwnas.search import Candidate, Problem, find_front
from hwnas.search.next_steps import next_steps
from hwnas.search.problem import Constraints
from hwnas.search.rerank import Chosen
from hwnas.workflows.recipes import RecipeChoice

Answer = dict[str, Any]


def network_answer(wanted: Constraints, found: Candidate, accuracy: float, *, strategy: str, proof: str) -> Answer:
    """What is written of any network that was found: its evaluated accuracy, its costs, and what is proved of it."""
    latencies = {o.name: o.latency for o in wanted.objectives if o.latency}
    answer: Answer = {
        "label": ", ".join(wanted.budgets),
        "space": wanted.space.name,
        "budgets": dict(wanted.budgets),
        "predicted": dict(found.costs),
        "arch": dict(found.arch),
        "validation_accuracy": accuracy,
        "latency_sources": {name: latency.source for name, latency in latencies.items()},
        "strategy": strategy,
        "proof": proof,
    }
    if len(wanted.budgets) == len(latencies) == 1:  # what `hwnas export` and `hwnas bench` compare with
        [name] = latencies
        answer |= {"target": name, "budget_ms": wanted.budgets[name], "predicted_ms": found.costs[name]}
    return answer


def answer_of(problem: Problem, chosen: Chosen, model: AccuracyModel, *, row: int = 0) -> Answer:
    """What is written of a network that an accuracy model led to."""
    best = chosen.candidates[row]
    return {
        **network_answer(problem, best, chosen.accuracies[row], strategy=chosen.found.strategy, proof=chosen.proof),
        "predicted_accuracy": best.predicted_accuracy,
        "accuracy_model": {
            "subnets": model.subnets,
            **{name: quality.known() for name, quality in model.quality.items()},
        },
    }


def recipe_answer(
    problems: Mapping[str, Problem], choices: list[RecipeChoice], left_out: Mapping[str, str], model: AccuracyModel
) -> Answer:
    """What is written of the best recipe's network, with all recipes beside it."""
    first = choices[0]
    answer = answer_of(problems[first.target.name], first.chosen, model, row=first.best)
    answer["recipes"] = [
        {
            "target": choice.target.name,
            "predicted_ms": choice.chosen.candidates[choice.best].costs[choice.target.name],
            "deployed_accuracy": choice.deployed[choice.best],
            "change": choice.change,
            "arch": dict(choice.chosen.candidates[choice.best].arch),
        }
        for choice in choices
    ]
    answer["recipes_left_out"] = left_out
    return answer


def explained(problem: Problem, answer: Answer) -> Answer:
    """For each target: milliseconds by slot, and what more of them would buy."""
    arch = problem.space.arch(answer["arch"])
    [candidate] = problem.candidates(problem.space.encode([arch]))
    return {
        o.name: {
            "slots_ms": slot_latencies(o.latency, arch),
            "next": [asdict(step) for step in next_steps(problem, candidate, o)],
        }
        for o in problem.objectives
        if o.latency
    }


def write_front(
    folder: Path, problems: Mapping[str, Problem], choices: list[RecipeChoice], answers: list[Answer]
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
        for name in set(answer["budgets"]) & set(shown):
            codes = shown[name].space.encode([shown[name].space.arch(answer["arch"])])
            marked[name] = shifted(name, shown[name].candidates(codes))
    write_fronts(folder, next(iter(shown.values())).space, fronts, axis, marked=marked)


def check_places(out: Path, front: Path | None, *, family: bool) -> None:
    """Check, before long work, that answers and fronts may be written where they shall.

    Raises:
        OutputError: there is a folder in place of a file, or a file in place of a folder.
    """
    for path in [p for p in (out if family else None, front) if p]:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; {'--family writes' if path == out else '--front writes'} a folder")
    if not family and out.is_dir():
        raise OutputError(f"{out} is a folder; give the name of a file for the arch, such as {out / 'arch.json'}")


def write_answers(out: Path, answers: list[Answer], *, family: bool) -> list[Path]:
    """Write each answer into its file; those of a family into a folder, named by target.

    Raises:
        OutputError: a file cannot be written.
    """
    files = [out / f"{answer['label'].replace('/', '-')}.json" if family else out for answer in answers]
    for answer, file in zip(answers, files, strict=True):
        write_whole(file, json.dumps(answer, indent=2) + "\n")
    return files


def lines_of(answer: Answer, file: Path, supernet: Path | None) -> Iterator[str]:
    """The answer for a terminal, line by line; without a supernet nothing can be exported."""
    budgets = ", ".join(
        f"{answer['predicted'][name]:.4g} of {budget:.4g} {'ms ' if '/' in name else ''}on {name}"
        for name, budget in answer["budgets"].items()
    )
    sources = ", ".join(sorted(set(answer["latency_sources"].values())))
    yield f"{answer['validation_accuracy']:.2%} on validation, predicted {budgets}" + (
        f" (latencies of ops: {sources})" if sources else ""
    )
    if models := answer.get("accuracy_model"):
        quality = (
            f"{name} τ {models[name]['kendall_tau'] or 0:.3f}, RMSE {models[name]['rmse']:.2%}"
            for name in ("stagewise", "ensemble")
        )
        yield f"Accuracy model on {models['subnets']} subnets, by cross-validation: {'; '.join(quality)}"
    yield answer["proof"]
    for recipe in answer.get("recipes", []):
        yield (
            f"  {recipe['target']}: {recipe['deployed_accuracy']:.2%} deployed ({recipe['change']:+.2%} by the recipe),"
            f" predicted {recipe['predicted_ms']:.4g} ms"
        )
    for name, why in answer.get("recipes_left_out", {}).items():
        yield f"  left out: {name}: {why}"
    for name, parts in answer.get("explained", {}).items():
        yield f"Milliseconds on {name}:"
        for slot, ms in sorted(parts["slots_ms"].items(), key=lambda item: -item[1]):
            yield f"  {slot:20} {ms:.4g}"
        for step in parts["next"]:
            changes = ", ".join(
                f"{v} {'-' if a is None else a}→{'-' if b is None else b}" for v, (a, b) in step["changes"].items()
            )
            yield f"  a budget of {step['budget']:.4g} ms buys {step['gain']:+.2%}: {changes}"
        if not parts["next"]:
            yield "  no larger budget buys a higher predicted accuracy"
    yield f"Arch: {file}"
    if supernet and "target" in answer:
        yield f"Export it with: hwnas export {file} --supernet {supernet} --target {answer['target']} --out BUNDLE"
