"""Exact search against brute force, on spaces small enough for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwnas.errors import InfeasibleBudget, InvalidValue
from hwnas.search import Objective, Problem, find_front, resource, solve
from hwnas.search.exact.decompose import Decomposition
from hwnas.search.exact.front import least
from hwnas.search.exact.pareto import pareto
from hwnas.spaces import Codes, SlotFunction, SlotMax, SlotSum, Space, make_space

MakeProblem = Callable[..., Callable[[float | None], Problem]]
MakeSum = Callable[[Space, np.random.Generator], SlotSum]
BruteForce = Callable[[Space], Codes]

TINY = make_space("mobilenetv3-tiny")


def objectives(space: Space, count: int, rng: np.random.Generator, make_cost: MakeSum) -> tuple[Objective, ...]:
    """Random costs; the third is the largest of terms rather than their sum."""
    found = []
    for i in range(count):
        total: SlotFunction = make_cost(space, rng)
        if i == 2:
            total = SlotMax(constant=0.0, axes=total.axes, arrays=total.arrays)
        found.append(Objective(name=f"cost{i}", unit="", total=total))
    return tuple(found)


def check(problem: Problem, codes: Codes, k: int) -> None:
    """The k best by exact search are those of all networks; so are two more strategies' best."""
    accuracy, fits = problem.accuracy(codes), problem.excess(codes) == 0
    best = np.sort(accuracy[fits])[::-1][:k]
    if not len(best):
        with pytest.raises(InfeasibleBudget):
            solve(problem, candidates=k)
        return
    found = solve(problem, candidates=k)
    np.testing.assert_allclose([c.predicted_accuracy for c in found.candidates], best, rtol=1e-12, atol=1e-12)
    assert found.proved
    assert not found.stopped
    assert len({c.arch for c in found.candidates}) == len(found.candidates)
    rows = problem.space.encode([c.arch for c in found.candidates])
    assert (problem.excess(rows) == 0).all()
    np.testing.assert_array_equal([list(c.costs.values()) for c in found.candidates], problem.costs(rows))
    [by_program] = solve(problem, "milp", candidates=1).candidates
    assert by_program.predicted_accuracy == pytest.approx(best[0], rel=1e-9, abs=1e-9)


def check_front(problem: Problem, codes: Codes) -> None:
    """The exact front is that of all networks: no point of either is better than all of the other."""
    fits = codes[problem.excess(codes) == 0]
    if not len(fits):
        with pytest.raises(InfeasibleBudget):
            find_front(problem)
        return
    points = np.column_stack([problem.costs(fits), -problem.accuracy(fits)])
    found = find_front(problem)
    rows = problem.space.encode([c.arch for c in found.candidates])
    ours = np.column_stack([problem.costs(rows), -problem.accuracy(rows)])
    # Networks whose costs are the same sums in another order may or may not count as dominated by each other.
    theirs = points[pareto(points)]
    for a, b in ((ours, theirs), (theirs, ours)):
        for i in range(0, len(a), 500):
            assert (b[None] <= a[i : i + 500, None] + 1e-9).all(axis=2).any(axis=1).all()
    assert found.proved


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.usefixtures("held")
def test_what_is_found_is_what_brute_force_finds(
    small: Space, seed: int, count: int, make_gain: MakeSum, make_cost: MakeSum, brute_force: BruteForce
) -> None:
    rng, codes = np.random.default_rng(seed), brute_force(small)
    problem = Problem(
        space=small, accuracy=make_gain(small, rng), objectives=objectives(small, count, rng, make_cost), seed=seed
    )
    check_front(problem, codes)
    values = problem.costs(codes)
    for level in (0.0, *rng.uniform(0, 1, 2), 1.1):
        limits = np.quantile(values, min(1.0, level), axis=0) * max(1.0, level)
        budgets = {f"cost{i}": float(limit) for i, limit in enumerate(limits)}
        check(replace(problem, budgets=budgets), codes, 10)
    check_front(replace(problem, budgets={"cost0": float(np.median(values[:, 0]))}), codes)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_restrictions_of_spaces(
    data: st.DataObject, make_gain: MakeSum, make_cost: MakeSum, brute_force: BruteForce
) -> None:
    """Up to some 20,000 networks; `test_a_million_networks` has more."""
    whole = make_space(data.draw(st.sampled_from(["mobilenetv3-tiny", "mobilenetv3", "resnet50"])))
    choices = {v.name: (v.values[0],) for v in whole.variables}
    for name in data.draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=9, unique=True)):
        values = whole.variable(name).values
        choices[name] = tuple(sorted(data.draw(st.sets(st.sampled_from(values), min_size=1, max_size=3))))
    space = whole.fix(**choices)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count = data.draw(st.integers(1, 3))
    codes = brute_force(space)
    problem = Problem(
        space=space, accuracy=make_gain(space, rng), objectives=objectives(space, count, rng, make_cost), seed=0
    )
    check_front(problem, codes)
    level = data.draw(st.floats(0.01, 0.99))
    limits = np.quantile(problem.costs(codes), level, axis=0)
    check(replace(problem, budgets={f"cost{i}": float(x) for i, x in enumerate(limits)}), codes, 20)


def restricted(space: Space, *kept: str) -> Space:
    """The space with the largest value of every kernel, expansion and width but some."""
    ones = {v.name: v.values[-1] for v in space.variables if v.name.startswith(("kernel", "expansion", "width"))}
    return space.fix(**{name: value for name, value in ones.items() if name not in kept})


KERNELS = tuple(f"kernel_{s}_{b}" for s in (1, 2, 3) for b in (1, 2, 3))
MILLION = (
    restricted(TINY, *KERNELS, "expansion_1_1"),
    restricted(
        make_space("resnet50").fix(resolution=(128, 192), depth_3=(4, 6)),
        *(f"width_{i}" for i in ("stem", 0, 1, 2, 3, 4)),
        "expansion_1_1",
        "expansion_3_5",
    ),
)


@pytest.mark.long
@pytest.mark.parametrize(("seed", "count"), [(0, 2), (1, 3)])
def test_a_million_networks(
    seed: int, count: int, make_gain: MakeSum, make_cost: MakeSum, brute_force: BruteForce
) -> None:
    space = MILLION[seed]
    assert 400_000 < space.size < 1_100_000
    rng, codes = np.random.default_rng(seed), brute_force(space)
    problem = Problem(
        space=space, accuracy=make_gain(space, rng), objectives=objectives(space, count, rng, make_cost), seed=seed
    )
    check_front(problem, codes)
    for level in (0.02, 0.3, 0.8):
        limits = np.quantile(problem.costs(codes), level, axis=0)
        check(replace(problem, budgets={f"cost{i}": float(x) for i, x in enumerate(limits)}), codes, 100)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("held")
def test_the_least_is_that_of_brute_force(
    small: Space, seed: int, make_problem: MakeProblem, brute_force: BruteForce
) -> None:
    problem, codes = make_problem(small, seed)(None), brute_force(small)
    peak = resource(small, "peak_activation_bytes").total
    for total in (problem.objectives[0].total, problem.accuracy, small.macs, peak):
        assert isinstance(total, SlotSum | SlotMax)
        code, value = least(small, total)
        assert value == pytest.approx(total(codes).min(), rel=1e-12)
        assert float(total(code[None])[0]) == value


@pytest.mark.parametrize("strategy", ["exact", "milp"])
@pytest.mark.parametrize("seed", range(10))
def test_a_budget_of_exactly_the_fastest_network_is_feasible(
    strategy: str, seed: int, make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    space = small_spaces["three stages"]
    make, codes = make_problem(space, seed, margin=0.02 * (seed % 3)), brute_force(space)
    [latency] = make(None).objectives
    assert latency.latency
    fastest = float(latency.latency.predict_upper(codes).min())
    [found] = solve(make(fastest), strategy, candidates=5).candidates
    assert found.costs[latency.name] == pytest.approx(latency.total(codes).min())


@pytest.mark.parametrize("seed", range(20))
def test_sums_taken_in_another_order_lose_no_network(seed: int, make_problem: MakeProblem) -> None:
    """Parts are summed up one way in the search and another in a prediction, and differ in the last digits."""
    space = TINY.fix(resolution=24)
    make = make_problem(space, seed)
    [latency] = make(None).objectives
    code, lowest = least(space, latency.total)
    for budget in (lowest, float(latency.total(code[None])[0])):
        [found] = solve(replace(make(budget), confidence=None)).candidates
        assert found.costs[latency.name] == pytest.approx(lowest)


@pytest.mark.parametrize("strategy", ["exact", "milp"])
@pytest.mark.parametrize("budgets", [1, 2])
def test_networks_just_above_a_budget_take_nobodys_place(strategy: str, budgets: int) -> None:
    """They are above it by less than what sums in another order may differ by, and worth more."""
    space = TINY.fix(**{v.name: v.values[0] for v in TINY.variables if v.name not in ("kernel_1_1", "kernel_2_1")})
    columns = tuple(space.column[name] for name in ("kernel_1_1", "kernel_2_1"))
    costs = np.array([0.25, 0.5, 0.5 + 2e-10])
    total = SlotSum(constant=0.0, axes=((columns[0],), (columns[1],)), arrays=(costs, costs))
    gains = np.array([0.0, 1.0, 2.0])
    problem = Problem(
        space=space,
        accuracy=SlotSum(constant=7.0, axes=((columns[0],), (columns[1],)), arrays=(gains, gains)),
        objectives=tuple(Objective(name=f"c{i}", unit="", total=total) for i in range(budgets)),
        budgets={f"c{i}": 1.0 for i in range(budgets)},
    )
    for k in (1, 2, 3, 6, 20):
        found = solve(problem, strategy, candidates=k)
        assert found.proved
        assert [c.predicted_accuracy for c in found.candidates] == [9.0, 9.0, 9.0, 8.0, 8.0, 7.0][:k]


@pytest.mark.parametrize("held", [2, 200_000])
def test_what_can_never_matter_counts_once(
    held: int, make_problem: MakeProblem, brute_force: BruteForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels of blocks that no depth lets stand, held or not."""
    monkeypatch.setattr("hwnas.search.exact.decompose.MAX_PART", held)
    free = ("resolution", "kernel_1_1", "kernel_1_2", "kernel_1_3", "expansion_2_2", "expansion_3_1", "kernel_3_3")
    space = TINY.fix(**{v.name: v.values[0] for v in TINY.variables if v.name not in free})
    assert space.size == 27
    problem = make_problem(space, 0)(None)
    found = solve(problem, candidates=30)
    assert len({c.arch for c in found.candidates}) == len(found.candidates) == 27
    best = np.sort(problem.accuracy(brute_force(space)))[::-1]
    np.testing.assert_allclose([c.predicted_accuracy for c in found.candidates], best)


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "mobilenetv3", "proxyless-w1.3", "resnet50"])
def test_no_two_parts_share_a_term(name: str, make_gain: MakeSum) -> None:
    space = make_space(name)
    gain = make_gain(space, np.random.default_rng(0))
    parts = Decomposition.of(space, gain, space.macs)
    columns = [column for part in parts.parts for column in part.columns] + list(parts.held)
    assert sorted(columns) == [i for i, v in enumerate(space.variables) if len(v.values) > 1]
    owner = {column: p for p, part in enumerate(parts.parts) for column in part.columns}
    for axes in (*gain.axes, *space.macs.axes):
        assert len({owner[axis] for axis in axes if axis in owner}) <= 1
    # The parts' tables are the whole sum.
    codes = space.sample(50, seed=1)
    for total in (gain, space.macs):
        value = np.full(len(codes), parts.constant(total))
        for part, table in zip(parts.parts, parts.tables(total), strict=True):
            for i, code in enumerate(codes):
                [row] = [r for r, c in enumerate(parts.scope_codes(part)) if (c == code)[list(part.scope)].all()]
                own = list(part.columns)
                [column] = np.nonzero((part.codes[:, own] == code[own]).all(axis=1))[0]
                value[i] += table[row, column]
        np.testing.assert_allclose(value, total(codes), rtol=1e-12)


def test_whole_resnet50_is_searched_along_its_chain_of_widths(make_problem: MakeProblem) -> None:
    """Its widths tie every stage to the next: holding them all at once would be 18,000 searches."""
    space = make_space("resnet50").fix(resolution=(160, 192, 224))
    make = make_problem(space, 3)
    budget = float(np.median(make(None).costs(space.sample(1000, seed=0))))
    found = solve(make(budget), candidates=3)
    assert found.proved
    [other] = solve(make(budget), "milp", candidates=1).candidates
    assert found.candidates[0].predicted_accuracy == pytest.approx(other.predicted_accuracy, rel=1e-9)


def test_a_space_that_cannot_be_taken_apart(make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.search.exact.decompose.MAX_PART", 2)
    monkeypatch.setattr("hwnas.search.exact.decompose.MAX_OPEN", 100)
    with pytest.raises(InvalidValue, match="are too densely coupled for exact search; restrict some of them"):
        solve(make_problem(TINY, 0)(100.0), "exact")


def test_confidence_leaves_a_margin(make_problem: MakeProblem, small_spaces: dict[str, Space]) -> None:
    space = small_spaces["three stages"]
    make = make_problem(space, 1, margin=0.04)
    budget = 1.1 * float(make(None).costs(space.sample(50, seed=0)).mean())
    problem = make(budget)
    [latency] = problem.objectives
    assert problem.limit(latency) < budget
    best = solve(problem).candidates[0]
    assert latency.latency
    [upper] = latency.latency.predict_upper(space.encode([best.arch]), problem.confidence)
    assert upper <= budget * (1 + 1e-9)


@pytest.mark.parametrize("strategy", ["exact", "milp"])
def test_an_accuracy_that_is_no_sum(strategy: str, make_problem: MakeProblem) -> None:
    problem = replace(make_problem(TINY, 0)(100.0), accuracy=lambda codes: np.zeros(len(codes)))
    with pytest.raises(InvalidValue, match=r"additive|sum over slots"):
        solve(problem, strategy)


def test_many_budgets_at_once(make_gain: MakeSum, make_cost: MakeSum) -> None:
    """A fleet of four on the whole space: exact search and the program agree."""
    rng = np.random.default_rng(5)
    costs = tuple(Objective(name=f"d{i}/r", unit="ms", total=make_cost(TINY, rng)) for i in range(4))
    problem = Problem(space=TINY, accuracy=make_gain(TINY, rng), objectives=costs)
    limits = np.quantile(problem.costs(TINY.sample(2000, seed=0)), 0.3, axis=0)
    problem = replace(problem, budgets={c.name: float(x) for c, x in zip(costs, limits, strict=True)})
    found, [other] = solve(problem, candidates=5), solve(problem, "milp", candidates=1).candidates
    assert found.proved
    assert found.candidates[0].predicted_accuracy == pytest.approx(other.predicted_accuracy, rel=1e-9)
