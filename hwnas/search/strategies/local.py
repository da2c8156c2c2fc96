"""Local search: steepest ascent from many networks at once, until no adjacent network is better.

Adjacent networks differ in one or two variables; with two, one part of a network can grow while another shrinks, which
a step along a budget requires. Source: White et al., "Exploring the Loss Landscape in Neural Architecture Search", UAI
2021.
"""

from __future__ import annotations

import itertools

import numpy as np

from hwnas.search.problem import Problem
from hwnas.search.strategies.base import Archive, Outcome, StrategyOptions, population, ranking
from hwnas.spaces import Codes

EVALUATIONS = 1_000_000
_STARTS = 1000  # random networks, from the best of which an ascent starts; fewer with few evaluations


def search_local(problem: Problem, options: StrategyOptions) -> Outcome:
    """The best networks of ascents from the given networks and then from random ones."""
    space, total = problem.space, options.evaluations or EVALUATIONS
    archive, stopped = Archive(problem, options.candidates), False
    steps = [(i, value) for i, v in enumerate(space.variables) for value in range(len(v.values)) if len(v.values) > 1]
    starts = [] if options.start is None else [code[None] for code in options.start]
    for climb in itertools.count():
        codes = (
            starts[climb]
            if climb < len(starts)
            else space.sample(population(_STARTS, total), seed=(problem.seed, 3, climb))
        )
        height = -np.inf
        while len(codes := codes[: total - archive.evaluations]):
            fitness = ranking(*archive.score(codes))
            options.progress("climbing", archive.evaluations, total)
            stopped = options.stop()
            if stopped or fitness.max() <= height:
                break
            place, height = codes[fitness.argmax()], fitness.max()
            codes = space.canonical(_neighbours(place, steps))
        if stopped or archive.evaluations >= total or not steps:
            return Outcome(codes=archive.best, proved=False, stopped=stopped, evaluations=archive.evaluations)
    raise AssertionError("a count has no end")


def _neighbours(place: Codes, steps: list[tuple[int, int]]) -> Codes:
    """All networks that differ from one in one or two variables, ``(n, variables)``."""
    columns, values = np.array([step for step in steps if place[step[0]] != step[1]], int).reshape(-1, 2).T
    first, second = np.triu_indices(len(columns))  # equal indices: a single change
    apart = (first == second) | (columns[first] != columns[second])
    first, second = first[apart], second[apart]
    out, rows = np.repeat(place[None], len(first), axis=0), np.arange(len(first))
    out[rows, columns[first]] = values[first]
    out[rows, columns[second]] = values[second]
    return out
