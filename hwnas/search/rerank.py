"""Re-ranking: the ensemble selects candidates, and evaluation on images decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hwnas.accuracy import AccuracyModel, Evaluator
from hwnas.files import Journal
from hwnas.progress import Progress, never, silent
from hwnas.search.problem import Candidate, Problem
from hwnas.search.solver import Found, solve

_AT_ONCE = 10  # networks evaluated between calls of `stop`
PROPOSALS = 300  # the best by the stage-wise model, from which the ensemble selects


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Evaluated networks.

    Attributes:
        candidates: by decreasing evaluated accuracy.
        accuracies: of each on the validation images.
        found: result of the search.
        proof: what is proved about the first candidate and what is not, in words.
    """

    candidates: list[Candidate]
    accuracies: list[float]
    found: Found
    proof: str


def choose(
    problem: Problem,
    evaluator: Evaluator,
    journal: Journal,
    *,
    strategy: str = "exact",
    candidates: int = 20,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Chosen:
    """Search, re-rank by the ensemble if the accuracy model has one, and evaluate the best.

    Args:
        problem: the problem.
        evaluator: evaluates subnets.
        journal: record of evaluations.
        strategy: as in `hwnas.search.solve`.
        candidates: number of networks to evaluate.
        stop: polled regularly; when it returns True, only the first of the best so far are evaluated.
        progress: callback, invoked during search and evaluations.

    Raises:
        UnknownName, InvalidValue, InfeasibleBudget: as in `hwnas.search.solve`.
    """
    model = problem.accuracy if isinstance(problem.accuracy, AccuracyModel) else None
    proposals = max(PROPOSALS, candidates) if model else candidates
    found = solve(problem, strategy, candidates=proposals, progress=progress, stop=stop)
    proposed = found.candidates
    if model:
        better, _ = model.ensemble_predict(problem.space.encode([c.arch for c in proposed]))
        proposed = [proposed[i] for i in np.argsort(-better, kind="stable")]
    accuracies: list[float] = []
    for start in range(0, min(candidates, len(proposed)), _AT_ONCE):
        if start and stop():
            break
        some = [c.arch for c in proposed[start : min(start + _AT_ONCE, candidates)]]
        accuracies += evaluator.accuracies(
            some, journal, what=f"evaluating candidates from {start + 1}", progress=progress
        )
    order = np.argsort(-np.array(accuracies), kind="stable")
    return Chosen(
        candidates=[proposed[i] for i in order],
        accuracies=[accuracies[i] for i in order],
        found=found,
        proof=_proof(problem, found, len(accuracies), ensemble=model is not None)
        + (
            f"; stopped before {len(proposed[:candidates]) - len(accuracies)} more were evaluated"
            if len(accuracies) < len(proposed[:candidates])
            else ""
        ),
    )


def _proof(problem: Problem, found: Found, evaluated: int, *, ensemble: bool) -> str:
    count, model = len(found.candidates), "ensemble" if ensemble else "model"
    if found.stopped:
        first = f"Stopped early: the best {count} that {found.strategy} search found so far. Nothing is proved"
    elif found.proved:
        first = (
            f"Proved: no other of the {problem.space.size:.3g} networks within the budgets has a higher predicted "
            f"accuracy than these {count}. Not proved"
        )
    else:
        first = f"The best {count} of {found.evaluations} that {found.strategy} search scored. Nothing is proved"
    return f"{first}: the {model} selected {evaluated} of them, and evaluation the best of those"
