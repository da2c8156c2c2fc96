"""Re-ranking: the accuracy model selects candidates, and evaluation on images decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from hwnas.accuracy import AccuracyModel, Evaluator
from hwnas.files import Journal
from hwnas.progress import Progress, never, silent
from hwnas.search.acquisition import ACQUISITIONS, check_acquisition
from hwnas.search.problem import Candidate, Problem
from hwnas.search.solver import Found, solve
from hwnas.spaces import Arch

_AT_ONCE = 10  # networks evaluated between calls of `stop`, and before the next ones are selected
PROPOSALS = 300  # the best by the stage-wise model, from which its predictor selects


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Evaluated networks.

    Attributes:
        candidates: all evaluated networks within the budgets, by decreasing accuracy; of equal ones, the cheaper first.
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
    acquisition: str = "mean",
    evaluated: Mapping[Arch, float] | None = None,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> Chosen:
    """Search, re-rank by `AccuracyModel.predict` if the accuracy is such a model, and evaluate the best.

    Networks are evaluated ten at a time; expected improvement refers to the best one so far.

    Args:
        problem: the problem.
        evaluator: evaluates subnets.
        journal: record of evaluations.
        strategy: as in `hwnas.search.solve`.
        candidates: number of networks to evaluate.
        acquisition: a key of `hwnas.search.acquisition.ACQUISITIONS`: which of them come first.
        evaluated: accuracies of other networks on the same images, considered as well, like those in the journal.
        stop: polled regularly; when it returns True, only the first of the best so far are evaluated.
        progress: callback, invoked during search and evaluations.

    Raises:
        UnknownName: there is no such acquisition function.
        UnknownName, InvalidValue, InfeasibleBudget: as in `hwnas.search.solve`.
    """
    check_acquisition(acquisition)
    model = problem.accuracy if isinstance(problem.accuracy, AccuracyModel) else None
    proposals = max(PROPOSALS, candidates) if model else candidates
    found = solve(problem, strategy, candidates=proposals, progress=progress, stop=stop)
    proposed = found.candidates
    left, done, wanted = np.arange(len(proposed)), 0, min(candidates, len(proposed))
    own = dict(evaluated or {})  # without the journal: a command that is repeated evaluates the same networks
    if model:
        mean, deviation = model.predict(problem.space.encode([c.arch for c in proposed]), noise=False)
    while done < wanted and not (done and stop()):
        if model:
            within = best_evaluated(problem, own)[1]
            use = ACQUISITIONS[acquisition](mean[left], deviation[left], within[0] if within else -np.inf)
            left = left[np.argsort(-use, kind="stable")]
        some = [proposed[i].arch for i in left[: min(_AT_ONCE, wanted - done)]]
        accuracies = evaluator.accuracies(
            some, journal, what=f"evaluating candidates from {done + 1}", progress=progress
        )
        own |= zip(some, accuracies, strict=True)
        left, done = left[len(some) :], done + len(some)
    cut = wanted - done
    ranked, values = best_evaluated(problem, evaluator.evaluated(journal) | own)
    return Chosen(
        candidates=ranked,
        accuracies=values,
        found=found,
        proof=_proof(problem, found, done, len(ranked), model)
        + (f"; stopped before {cut} more were evaluated" if cut else ""),
    )


def best_evaluated(problem: Problem, evaluated: Mapping[Arch, float]) -> tuple[list[Candidate], list[float]]:
    """The evaluated networks within the budgets, the most accurate first; of equal accuracies, the cheaper one first.

    Args:
        problem: space, objectives and budgets.
        evaluated: arch -> accuracy on the same images.

    Returns:
        the networks and their accuracies. The mean share of the budgets decides a tie; without budgets, the first
        objective does.
    """
    archs = list(evaluated)
    codes = problem.space.encode(archs)
    within = np.flatnonzero(problem.excess(codes) == 0)
    costs = problem.costs(codes[within])
    scale = [problem.budgets.get(objective.name) for objective in problem.objectives]
    budgeted = [i for i, budget in enumerate(scale) if budget] or [0]
    cost = np.mean([costs[:, i] / (scale[i] or 1.0) for i in budgeted], axis=0)
    accuracies = np.array([evaluated[archs[i]] for i in within])
    order = np.lexsort((cost, -accuracies))
    return problem.candidates(codes[within[order]]), [float(accuracies[i]) for i in order]


def _proof(problem: Problem, found: Found, evaluated: int, known: int, model: AccuracyModel | None) -> str:
    count, by = len(found.candidates), model.predictor.name if model else "model"
    if found.stopped:
        first = f"Stopped early: the best {count} that {found.strategy} search found so far. Nothing is proved"
    elif found.proved:
        first = (
            f"Proved: no other of the {problem.space.size:.3g} networks within the budgets has a higher predicted "
            f"accuracy than these {count}. Not proved"
        )
    else:
        first = f"The best {count} of {found.evaluations} that {found.strategy} search scored. Nothing is proved"
    return f"{first}: the {by} selected {evaluated} of them; the answer is the best of {known} evaluated networks"
