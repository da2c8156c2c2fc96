"""Regularised evolution: tournaments select parents, children are mutated copies, and the oldest are removed.

Source: Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019 (algorithm 1), here
with a generation of children at a time, so that models score them in batches, and with uniform crossover for most of
them, as in once-for-all's evolution (Cai et al., ICLR 2020).
"""

from __future__ import annotations

import numpy as np

from hwnas.search.problem import Problem
from hwnas.search.strategies.base import (
    Archive,
    Floats,
    Indices,
    Outcome,
    StrategyOptions,
    children,
    population,
    ranking,
)

EVALUATIONS = 400_000
_POPULATION = 4000
_GENERATIONS = 4  # generations until a population is replaced
_TOURNAMENT = 50  # largest size, and at most a quarter of the population


def search_evolution(problem: Problem, options: StrategyOptions) -> Outcome:
    """The best networks that evolution finds."""
    space, rng = problem.space, np.random.default_rng((problem.seed, 1))
    archive = Archive(problem, options.candidates)
    total = options.evaluations or EVALUATIONS
    genes = space.sample(population(_POPULATION, total, options.start), seed=(problem.seed, 2))
    if options.start is not None:
        genes[: len(options.start)] = options.start[: len(genes)]
    fitness = ranking(*archive.score(space.canonical(genes)))
    oldest, stopped = 0, False
    while archive.evaluations < total and not stopped:
        count = min(-(-len(genes) // _GENERATIONS), total - archive.evaluations)
        mothers, fathers = (_winners(fitness, count, rng) for _ in range(2))
        born = children(problem, genes[mothers], genes[fathers], rng)
        places = (oldest + np.arange(count)) % len(genes)
        genes[places], fitness[places] = born, ranking(*archive.score(space.canonical(born)))
        oldest = (oldest + count) % len(genes)
        options.progress("evolving networks", archive.evaluations, total)
        stopped = options.stop()
    return Outcome(codes=archive.best, proved=False, stopped=stopped, evaluations=archive.evaluations)


def _winners(fitness: Floats, count: int, rng: np.random.Generator) -> Indices:
    """The best of a tournament, for each of `count`."""
    drawn = rng.integers(len(fitness), size=(count, min(_TOURNAMENT, -(-len(fitness) // 4))))
    winners: Indices = drawn[np.arange(count), fitness[drawn].argmax(axis=1)]
    return winners
