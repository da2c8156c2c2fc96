"""What every strategy owes: one suite, run against all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hwnas.errors import InfeasibleBudget, InvalidValue, SearchStopped, UnknownName
from hwnas.search import FRONTS, STRATEGIES, Problem, draw_within, find_front, resource, solve
from hwnas.search.exact.pareto import pareto
from hwnas.search.strategies.base import mutate
from hwnas.spaces import Codes, Space, make_space

MakeProblem = Callable[..., Callable[[float | None], Problem]]
BruteForce = Callable[[Space], Codes]

TINY = make_space("mobilenetv3-tiny")
HEURISTICS = [name for name in STRATEGIES if name not in ("exact", "milp")]
FEW = 6000  # evaluations: enough to see what a heuristic does


def median_budget(make: Callable[[float | None], Problem], space: Space, level: float = 0.4) -> float:
    return float(np.quantile(make(None).costs(space.sample(1000, seed=9)), level))


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_budgets_are_kept_and_the_best_comes_first(strategy: str, make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 0, margin=0.03)
    problem = make(median_budget(make, TINY))
    found = solve(problem, strategy, candidates=3, evaluations=FEW)
    rows = TINY.encode([c.arch for c in found.candidates])
    assert 1 <= len(found.candidates) <= 3
    assert (problem.excess(rows) == 0).all()
    [latency] = problem.objectives
    assert latency.latency
    assert (latency.latency.predict_upper(rows) <= problem.budgets[latency.name] * (1 + 1e-9)).all()
    accuracies = [c.predicted_accuracy for c in found.candidates]
    assert accuracies == problem.accuracy(rows).tolist() == sorted(accuracies, reverse=True)
    assert len({c.arch for c in found.candidates}) == len(found.candidates)
    assert found.strategy == strategy
    assert not found.stopped
    assert found.evaluations <= FEW
    assert found.proved == (strategy in ("exact", "milp"))
    assert (found.evaluations == 0) == found.proved


def test_the_seed_decides(strategy: str, make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 1)
    problem = make(median_budget(make, TINY))
    # So few that no heuristic finds the best ones, which are the same for every seed.
    first, again = (solve(problem, strategy, candidates=2, evaluations=300) for _ in range(2))
    assert first == again
    other = solve(replace(problem, seed=problem.seed + 1), strategy, candidates=2, evaluations=300)
    assert (other == first) == first.proved


def test_nothing_is_better_than_what_is_proved(strategy: str, make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 2)
    problem = make(median_budget(make, TINY, 0.2))
    best = solve(problem, candidates=1).candidates[0].predicted_accuracy
    found = solve(problem, strategy, candidates=1, evaluations=FEW).candidates[0].predicted_accuracy
    assert found == pytest.approx(best, rel=1e-9) if strategy in ("exact", "milp") else found <= best


def test_progress_never_goes_back(strategy: str, make_problem: MakeProblem) -> None:
    make, told = make_problem(TINY, 0), list[tuple[str, int, int]]()
    solve(
        make(median_budget(make, TINY)),
        strategy,
        candidates=2,
        evaluations=FEW,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert told
    for what in {what for what, _, _ in told}:
        done = [d for w, d, _ in told if w == what]
        assert done == sorted(done)
        assert all(0 <= d <= t for w, d, t in told if w == what)


@pytest.mark.parametrize("asked", [0, 1, 3])
@pytest.mark.parametrize("budgets", [1, 2])
def test_a_search_stops_when_told_with_the_best_so_far(
    strategy: str, asked: int, budgets: int, make_problem: MakeProblem
) -> None:
    make, times = make_problem(TINY, 0), iter(range(10**9))
    problem = make(median_budget(make, TINY))
    if budgets == 2:
        params = resource(TINY, "params")
        limit = float(np.quantile(params.total(TINY.sample(1000, seed=9)), 0.7))
        problem = replace(
            problem, objectives=(*problem.objectives, params), budgets={**problem.budgets, "params": limit}
        )
    found = solve(problem, strategy, candidates=20, stop=lambda: next(times) >= asked)
    assert found.stopped
    assert not found.proved
    assert found.candidates
    assert (problem.excess(TINY.encode([c.arch for c in found.candidates])) == 0).all()
    assert next(times) <= asked + 3


def test_a_front_that_is_not_finished_is_none(make_problem: MakeProblem) -> None:
    with pytest.raises(SearchStopped, match="was stopped before it had found a network"):
        find_front(make_problem(TINY, 0)(None), stop=lambda: True)


def test_an_impossible_budget(strategy: str, make_problem: MakeProblem) -> None:
    problem = make_problem(TINY, 0)(1e-9)
    with pytest.raises(
        InfeasibleBudget, match="no network of mobilenetv3-tiny is within 1e-09 ms on board/made-up"
    ) as e:
        solve(problem, strategy, evaluations=FEW)
    assert e.value.objectives == ("board/made-up",)


def test_without_a_budget_the_most_accurate_of_all(
    strategy: str, make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    space = small_spaces["three stages"]
    problem = make_problem(space, 3)(None)
    [found] = solve(problem, strategy, candidates=1).candidates
    assert found.predicted_accuracy == pytest.approx(problem.accuracy(brute_force(space)).max())


def test_one_network_and_no_choice(strategy: str, make_problem: MakeProblem, small_spaces: dict[str, Space]) -> None:
    space = small_spaces["one network"]
    [found] = solve(make_problem(space, 0)(1e9), strategy, candidates=5).candidates
    assert found.arch == space.smallest


@pytest.mark.parametrize("strategy", HEURISTICS)
def test_any_function_can_be_the_accuracy(strategy: str, make_problem: MakeProblem) -> None:
    """Here the product of two sums, which no exact search takes."""
    make = make_problem(TINY, 4)
    problem = make(median_budget(make, TINY))
    plain = problem.accuracy
    problem = replace(problem, accuracy=lambda codes: plain(codes) * TINY.params(codes) / 1e5)
    found = solve(problem, strategy, candidates=1, evaluations=20_000).candidates[0]
    drawn = draw_within(problem, 200)
    assert found.predicted_accuracy > problem.accuracy(drawn).max()


@pytest.mark.parametrize("strategy", [name for name in HEURISTICS if name != "random"])
def test_a_warm_start_is_never_lost(strategy: str, make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 5)
    problem = make(median_budget(make, TINY))
    best = solve(problem, candidates=1).candidates[0]
    start = TINY.encode([best.arch])
    [found] = solve(problem, strategy, candidates=1, evaluations=600, start=start).candidates
    assert found.predicted_accuracy == best.predicted_accuracy


@pytest.mark.parametrize("strategy", HEURISTICS)
def test_many_copies_of_the_best_crowd_nobody_out(
    strategy: str, make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    space = small_spaces["resolutions"]
    problem, codes = make_problem(space, 0)(None), brute_force(small_spaces["resolutions"])
    found = solve(problem, strategy, candidates=len(codes) + 5, evaluations=10_000)
    assert len(found.candidates) == len(codes)


# -- fronts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", FRONTS)
def test_nothing_on_a_front_is_dominated(strategy: str, make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 0)
    problem = make(None)
    problem = replace(problem, objectives=(*problem.objectives, resource(TINY, "params")))
    found = find_front(problem, strategy, evaluations=5000)
    rows = TINY.encode([c.arch for c in found.candidates])
    points = np.column_stack([problem.costs(rows), -problem.accuracy(rows)])
    assert len(pareto(points)) == len(points) > 10
    assert (np.diff(points[:, 0]) >= 0).all()
    budget = float(np.median(points[:, 0]))
    cut = find_front(replace(problem, budgets={"board/made-up": budget}), strategy, evaluations=5000)
    assert all(c.costs["board/made-up"] <= budget for c in cut.candidates)
    cheapest = min(c.costs["board/made-up"] for c in found.candidates)
    assert min(c.costs["board/made-up"] for c in cut.candidates) <= 1.1 * cheapest, "a budget cuts one end off"


def test_nsga2_comes_near_the_exact_front(make_problem: MakeProblem) -> None:
    problem = make_problem(TINY, 1)(None)
    exact, near = find_front(problem), find_front(problem, "nsga2")
    costs = np.array([c.costs["board/made-up"] for c in exact.candidates])
    best = np.array([c.predicted_accuracy for c in exact.candidates])
    spread = best.max() - best.min()
    assert len(near.candidates) >= len(exact.candidates) / 2 > 5
    assert min(c.costs["board/made-up"] for c in near.candidates) <= 1.1 * costs[0]
    for c in near.candidates:
        bound = best[np.searchsorted(costs, c.costs["board/made-up"] * (1 + 1e-9), side="right") - 1]
        assert bound - 0.05 * spread <= c.predicted_accuracy <= bound + 1e-9


# -- bad input --------------------------------------------------------------------------------------------


def test_an_unknown_strategy_lists_the_choices(make_problem: MakeProblem) -> None:
    with pytest.raises(UnknownName, match=r"unknown search strategy 'exakt'. Did you mean 'exact'\?") as caught:
        solve(make_problem(TINY, 0)(1e9), "exakt")
    assert set(caught.value.choices) == set(STRATEGIES)


@pytest.mark.parametrize("count", [0, -3])
def test_at_least_one_candidate_and_evaluation(count: int, make_problem: MakeProblem) -> None:
    problem = make_problem(TINY, 0)(1e9)
    for given in ({"candidates": count}, {"evaluations": count}):
        with pytest.raises(InvalidValue, match=rf"at least 1 candidate and 1 evaluation, not .*{count}"):
            solve(problem, "random", **given)


# -- drawing ----------------------------------------------------------------------------------------------


def test_draws_are_distinct_and_within_the_budget(
    make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    make = make_problem(TINY, 4)
    problem = make(median_budget(make, TINY, 0.2))
    drawn = draw_within(problem, 50)
    assert drawn.shape == (50, len(TINY.variables))
    assert len(np.unique(drawn, axis=0)) == 50
    assert (problem.excess(drawn) == 0).all()
    assert (drawn == draw_within(problem, 50)).all()
    assert (drawn[:20] == draw_within(problem, 20)).all()
    assert not np.array_equal(drawn, draw_within(replace(problem, seed=77), 50))
    # A space with fewer networks gives all of them, and ends.
    small = small_spaces["one stage"]
    assert len(draw_within(make_problem(small, 0)(1e9), 10_000)) == len(brute_force(small))


def test_a_budget_that_hardly_any_network_keeps_ends_the_drawing(make_problem: MakeProblem) -> None:
    space = make_space("mobilenetv3")
    make = make_problem(space, 5)
    lowest = find_front(make(None)).candidates[0].costs["board/made-up"]
    tight = replace(make(lowest * 1.001), confidence=None)
    assert draw_within(tight, 10).shape == (0, len(space.variables))
    with pytest.raises(InfeasibleBudget, match=r"found no network .* among 5000.*use --strategy exact"):
        solve(tight, "random", evaluations=5000)
    assert solve(tight).candidates[0].costs["board/made-up"] <= lowest * 1.001


@pytest.mark.parametrize("changes", [0.0, 1.0, 5.0])
def test_a_mutation_changes_at_least_one_variable(changes: float) -> None:
    space = TINY.fix(depth_1=2, kernel_1_1=(3, 7))
    before = np.repeat(space.sample(1, seed=0), 5000, axis=0)
    after = mutate(make_space_problem(space), before, changes, np.random.default_rng(0))
    changed = (before != after).sum(axis=1)
    assert changed.min() >= 1
    free = sum(len(v.values) > 1 for v in space.variables)
    assert changed.mean() == pytest.approx(1 + changes * (1 - 1 / free), rel=0.05)
    space.canonical(after)  # only values that exist


def make_space_problem(space: Space) -> Problem:
    return Problem(space=space, accuracy=space.macs, objectives=(resource(space, "params"),))
