"""NSGA-II with accuracy and costs as objectives and the budgets as constraints.

Source: Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE Transactions on Evolutionary
Computation 2002. Sorting and crowding are from pymoo (Blank and Deb, IEEE Access 2020); the population is one matrix,
because pymoo's objects, one per network, take ten times as long as scoring them.

In a search for a single network, costs below `_GOAL` of a budget give no advantage: the population then concentrates
near the budget instead of the whole front (goals: Deb, "Solving goal programming problems using multi-objective genetic
algorithms", CEC 1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwnas.search.problem import Problem
from hwnas.search.strategies.base import Archive, Floats, Indices, Outcome, StrategyOptions, children, population
from hwnas.spaces import Codes

EVALUATIONS = 150_000
_POPULATION = 500
_GOAL = 0.9


@dataclass(slots=True)
class _Population:
    """Networks ``(n, variables)``, losses ``(n, objectives)``, constraint violation, rank and crowding ``(n,)``."""

    genes: Codes
    losses: Floats
    excess: Floats
    rank: Indices
    crowding: Floats


def search_nsga2(problem: Problem, options: StrategyOptions) -> Outcome:
    """The best networks among all that NSGA-II scores."""
    archive, _, stopped = _evolve(problem, options, _GOAL)
    return Outcome(codes=archive.best, proved=False, stopped=stopped, evaluations=archive.evaluations)


def nsga2_front(problem: Problem, options: StrategyOptions) -> Outcome:
    """The non-dominated networks within the budgets in NSGA-II's last population."""
    archive, last, stopped = _evolve(problem, options, 0.0)
    front = problem.space.canonical(last.genes[(last.rank == 0) & (last.excess == 0)])
    return Outcome(codes=np.unique(front, axis=0), proved=False, stopped=stopped, evaluations=archive.evaluations)


def _evolve(problem: Problem, options: StrategyOptions, goal: float) -> tuple[Archive, _Population, bool]:
    space, archive = problem.space, Archive(problem, options.candidates)
    rng, total, stopped = np.random.default_rng((problem.seed, 4)), options.evaluations or EVALUATIONS, False
    goals = np.array([problem.limit(o) * goal if goal else -np.inf for o in problem.objectives])
    goals[np.isinf(goals)] = -np.inf  # without a budget, lower is always better
    genes = space.sample(population(_POPULATION, total, options.start), seed=(problem.seed, 5))
    if options.start is not None:
        genes[: len(options.start)] = options.start[: len(genes)]
    size = len(genes)

    def scored(genes: Codes) -> tuple[Codes, Floats, Floats]:
        codes = space.canonical(genes)
        accuracies, excess = archive.score(codes)
        return genes, np.column_stack([-accuracies, np.maximum(problem.costs(codes), goals)]), excess

    now = _survivors(*scored(genes), size)
    while archive.evaluations < total and not stopped:
        mothers, fathers = (_winners(now, min(size, total - archive.evaluations), rng) for _ in range(2))
        born, losses, excess = scored(children(problem, now.genes[mothers], now.genes[fathers], rng))
        now = _survivors(
            np.concatenate([now.genes, born]),
            np.concatenate([now.losses, losses]),
            np.concatenate([now.excess, excess]),
            size,
        )
        options.progress("evolving networks", archive.evaluations, total)
        stopped = options.stop()
    return archive, now, stopped


def _survivors(genes: Codes, losses: Floats, excess: Floats, size: int) -> _Population:
    """The best by front and crowding; those above the budgets come last, by constraint violation."""
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    rank, crowding = np.zeros(len(genes), np.intp), np.zeros(len(genes))
    [within], [above] = np.nonzero(excess == 0), np.nonzero(excess > 0)
    kept: list[Indices] = []
    fronts = NonDominatedSorting().do(losses[within], n_stop_if_ranked=size) if len(within) else []
    for number, front in enumerate(within[front] for front in fronts):
        rank[front], crowding[front] = number, calc_crowding_distance(losses[front], filter_out_duplicates=True)
        room = size - sum(map(len, kept))
        kept.append(front[np.argsort(-crowding[front], kind="stable")[:room]])
    rank[above] = len(fronts) + np.argsort(np.argsort(excess[above], kind="stable"))
    kept.append(above[np.argsort(excess[above], kind="stable")[: size - sum(map(len, kept))]])
    chosen = np.concatenate(kept)
    return _Population(genes[chosen], losses[chosen], excess[chosen], rank[chosen], crowding[chosen])


def _winners(now: _Population, count: int, rng: np.random.Generator) -> Indices:
    """The better of two, by front and then crowding, for each of `count`."""
    a, b = rng.integers(len(now.genes), size=(2, count))
    first = (now.rank[a] < now.rank[b]) | ((now.rank[a] == now.rank[b]) & (now.crowding[a] > now.crowding[b]))
    winners: Indices = np.where(first, a, b)
    return winners
