from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from hwnas.errors import InfeasibleBudget, InvalidValue, UnknownName
from hwnas.latency import LatencyModel
from hwnas.search import STRATEGIES, Problem, draw_within, parse_budget, solve
from hwnas.search import decompose as decompose_module
from hwnas.search.decompose import Decomposition
from hwnas.spaces import Codes, Space, make_space

MakeProblem = Callable[..., Callable[[float], Problem]]
BruteForce = Callable[[Space], Codes]

TINY = make_space("mobilenetv3-tiny")
ONE = {f"{what}_{s}_{b}": 3 for what in ("kernel", "expansion") for s in (1, 2, 3) for b in (1, 2, 3)}
SPACES = {
    "one network": TINY.fix(**ONE, resolution=24, depth_1=1, depth_2=1, depth_3=1),
    "one stage": TINY.fix(**{**ONE, "kernel_1_1": (3, 5), "kernel_1_3": (5, 7)}, resolution=28, depth_2=1, depth_3=1),
    "three stages": TINY.fix(
        **{**ONE, "kernel_1_2": (3, 5, 7), "expansion_2_2": (2, 4), "kernel_3_3": (3, 7), "expansion_3_1": (2, 3)},
        resolution=(24, 32),
    ),
    "no shallow depth": TINY.fix(
        **{**ONE, "kernel_1_3": (3, 5, 7), "expansion_2_2": (2, 4)}, depth_1=(2, 3), depth_2=(2,), depth_3=(1, 3)
    ),
    "resolutions": TINY.fix(**ONE),
}


@pytest.fixture(params=SPACES, ids=str)
def space(request: pytest.FixtureRequest) -> Space:
    return SPACES[request.param]


@pytest.fixture(params=[None, 12, 2], ids=["whole", "some held", "most held"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search with variables held, as a space needs it whose parts are too large to enumerate."""
    if request.param:
        monkeypatch.setattr(decompose_module, "MAX_PART", request.param)


# -- exact -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("held")
def test_exact_search_finds_what_brute_force_finds(
    space: Space, seed: int, make_problem: MakeProblem, brute_force: BruteForce
) -> None:
    make, codes = make_problem(space, seed), brute_force(space)
    ms, accuracy = make(1.0).latency.predict(codes), make(1.0).accuracy(codes)
    rng = np.random.default_rng(seed)
    for budget in (float(ms.min()), *rng.uniform(ms.min(), ms.max() * 1.01, 5), float(ms.max()) * 2):
        problem = make(budget)
        found = solve(problem, "exact", candidates=10)
        best = np.sort(accuracy[ms <= budget * (1 + 1e-12)])[::-1][:10]
        np.testing.assert_allclose([c.predicted_accuracy for c in found], best, rtol=1e-12)
        assert len({c.arch for c in found}) == len(found)
        rows = space.encode([c.arch for c in found])
        np.testing.assert_allclose([c.predicted_ms for c in found], problem.latency.predict(rows))
        np.testing.assert_allclose([c.predicted_accuracy for c in found], problem.accuracy(rows))
        assert all(c.predicted_ms <= problem.limit_ms for c in found)
        assert [c.predicted_accuracy for c in found] == sorted((c.predicted_accuracy for c in found), reverse=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("held")
def test_the_fastest_network_is_that_of_brute_force(
    space: Space, seed: int, make_problem: MakeProblem, brute_force: BruteForce
) -> None:
    problem, codes = make_problem(space, seed)(1.0), brute_force(space)
    for total in (problem.latency.total, problem.accuracy, space.macs):
        code, least = Decomposition.of(space, total, problem.latency.total).minimum(total)
        assert least == pytest.approx(total(codes).min(), rel=1e-12)
        assert float(total(code[None])[0]) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(20))
def test_a_budget_of_exactly_the_fastest_network_is_feasible(
    strategy: str, seed: int, make_problem: MakeProblem, brute_force: BruteForce
) -> None:
    small = SPACES["three stages"]
    make, codes = make_problem(small, seed, margin=0.02 * (seed % 3)), brute_force(small)
    fastest = float(make(1.0).latency.predict_upper(codes).min())
    [found] = solve(make(fastest), strategy, candidates=5)
    assert found.predicted_ms == pytest.approx(make(1.0).latency.predict(codes).min())


@pytest.mark.parametrize("seed", range(20))
def test_sums_taken_in_another_order_lose_no_network(seed: int, make_problem: MakeProblem) -> None:
    """Parts are summed up one way in the search and another in a prediction, and differ in the last digits."""
    make = make_problem(TINY.fix(resolution=24), seed)
    code, least = make(1.0).decomposition.minimum(make(1.0).latency.total)
    assert len(make(1.0).decomposition.parts) > 1
    for budget in (least, float(make(1.0).latency.predict(code[None])[0])):
        [found] = solve(make(budget), "exact")
        assert found.predicted_ms == pytest.approx(least)


def test_no_part_of_the_decomposition_shares_a_term(make_problem: MakeProblem) -> None:
    problem = make_problem(TINY, 0)(1.0)
    parts = problem.decomposition
    columns = [column for part in parts.parts for column in part] + list(parts.held)
    assert sorted(columns) == list(range(len(TINY.variables)))
    owner = {column: p for p, part in enumerate(parts.parts) for column in part}
    for axes in (*problem.latency.total.axes, *problem.accuracy.axes):
        assert len({owner[axis] for axis in axes if axis in owner}) <= 1


def test_a_space_that_cannot_be_taken_apart(make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompose_module, "MAX_PART", 2)
    monkeypatch.setattr(decompose_module, "MAX_HELD", 100)
    with pytest.raises(InvalidValue, match="does not fall into parts that can be enumerated; use --strategy random"):
        solve(make_problem(TINY, 0)(100.0), "exact")


def test_confidence_leaves_a_margin(make_problem: MakeProblem) -> None:
    make = make_problem(SPACES["three stages"], 1, margin=0.04)
    budget = 1.1 * float(make(1.0).latency.predict(make(1.0).space.sample(50, seed=0)).mean())
    problem = make(budget)
    assert problem.limit_ms < budget
    best, *_ = solve(problem, "exact")
    [upper] = problem.latency.predict_upper(problem.space.encode([best.arch]), problem.confidence)
    assert upper <= budget * (1 + 1e-9)


# -- random ----------------------------------------------------------------------------------------------


def test_random_search_is_seeded_and_never_better_than_exact(make_problem: MakeProblem) -> None:
    make = make_problem(TINY, 2)
    budget = float(np.quantile(make(1.0).latency.predict(TINY.sample(1000, seed=9)), 0.3))
    problem = make(budget)
    first, again = (solve(problem, "random", candidates=15, seed=4) for _ in range(2))
    other = solve(problem, "random", candidates=15, seed=5)
    assert first == again != other
    assert len(first) == 15
    assert all(c.predicted_ms <= problem.limit_ms for c in (*first, *other))
    assert [c.predicted_accuracy for c in first] == sorted((c.predicted_accuracy for c in first), reverse=True)
    assert solve(problem, "exact")[0].predicted_accuracy >= max(c[0].predicted_accuracy for c in (first, other))


def test_random_search_exhausts_a_small_space(make_problem: MakeProblem, brute_force: BruteForce) -> None:
    small = SPACES["three stages"]
    make = make_problem(small, 3)
    ms, accuracy = (f(brute_force(small)) for f in (make(1.0).latency.predict, make(1.0).accuracy))
    budget = float(np.median(ms))
    [best] = solve(make(budget), "random", candidates=1)
    assert best.predicted_accuracy == pytest.approx(accuracy[ms <= budget].max())


def test_draws_are_distinct_and_within_the_budget(make_problem: MakeProblem, brute_force: BruteForce) -> None:
    make = make_problem(TINY, 4)
    problem = make(float(np.quantile(make(1.0).latency.predict(TINY.sample(1000, seed=9)), 0.2)))
    drawn = draw_within(problem, 50, seed=1)
    assert drawn.shape == (50, len(TINY.variables))
    assert len(np.unique(drawn, axis=0)) == 50
    assert (problem.latency.predict(drawn) <= problem.limit_ms).all()
    assert (drawn == draw_within(problem, 50, seed=1)).all()
    assert (drawn[:20] == draw_within(problem, 20, seed=1)).all()
    assert not np.array_equal(drawn, draw_within(problem, 50, seed=2))
    # A space with fewer networks gives all of them, and ends.
    small = SPACES["one stage"]
    assert len(draw_within(make_problem(small, 0)(1e9), 10_000, seed=1)) == len(brute_force(small))


def test_a_budget_that_hardly_any_network_keeps_ends_the_drawing(make_problem: MakeProblem) -> None:
    problem = make_problem(make_space("mobilenetv3"), 5)(1.0)
    _, fastest_ms = problem.decomposition.minimum(problem.latency.total)
    tight = make_problem(make_space("mobilenetv3"), 5)(fastest_ms * 1.001)
    with pytest.raises(
        InfeasibleBudget, match=r"none of 100000 random networks keeps .*use --strategy exact"
    ) as caught:
        draw_within(tight, 10, seed=0)
    assert caught.value.fastest_ms == pytest.approx(fastest_ms)
    with pytest.raises(InfeasibleBudget, match="use --strategy exact"):
        solve(tight, "random")
    assert solve(tight, "exact")[0].predicted_ms <= tight.limit_ms


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(5))
def test_an_impossible_budget_names_the_fastest_network(
    strategy: str, seed: int, make_problem: MakeProblem, brute_force: BruteForce
) -> None:
    small = SPACES["three stages"]
    make, codes = make_problem(small, seed, margin=0.02), brute_force(small)
    ms = make(1.0).latency.predict(codes)
    [fastest] = small.decode(codes[[ms.argmin()]])
    budget = float(ms.min())  # as fast as the fastest, but without its margin
    with pytest.raises(InfeasibleBudget) as caught:
        solve(make(budget), strategy)
    assert caught.value.budget_ms == budget
    assert caught.value.fastest_ms == pytest.approx(ms.min())
    said = str(caught.value)
    assert f"no network of mobilenetv3-tiny keeps {budget:.4g} ms on board/made-up" in said
    assert f"predicted at {ms.min():.4g} ms" in said
    assert said.endswith(", ".join(f"{name}={value}" for name, value in small.describe(fastest).items()))
    # Who asks for the budget that the message names gets a network.
    needed = re.search(r"needs a budget of ([0-9.e-]+) ms \(at 95% confidence\)", said)
    assert needed
    assert solve(make(float(needed[1])), strategy)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan")])
def test_a_budget_is_positive(budget: float, make_problem: MakeProblem) -> None:
    with pytest.raises(InvalidValue, match=f"positive number of milliseconds, not {budget}"):
        make_problem(SPACES["one stage"], 0)(budget)


def test_an_unknown_strategy_lists_the_choices(make_problem: MakeProblem) -> None:
    with pytest.raises(UnknownName, match=r"unknown search strategy 'exakt'. Did you mean 'exact'\?") as caught:
        solve(make_problem(SPACES["one stage"], 0)(1e9), "exakt")
    assert set(caught.value.choices) == {"exact", "random"}


@pytest.mark.parametrize("candidates", [0, -3])
def test_at_least_one_candidate(candidates: int, make_problem: MakeProblem) -> None:
    with pytest.raises(InvalidValue, match=f"at least 1 candidate, not {candidates}"):
        solve(make_problem(SPACES["one stage"], 0)(1e9), "exact", candidates=candidates)


@pytest.fixture
def model(make_problem: MakeProblem) -> LatencyModel:
    return make_problem(TINY, 0)(1.0).latency


@pytest.mark.parametrize(
    "text",
    [
        *("0", "0ms", "-1", "-1ms", "0%", "-5%", "nan", "inf", "-inf", "nan%", "1e999"),
        *("", " ", "%", "ms", "abc", "e", ".", "1e", "1.2.3", "--5", "5s", "5 %%", "1,5", "0x10", "5 m s"),
    ],
)
def test_what_is_no_budget(text: str, model: LatencyModel) -> None:
    with pytest.raises(InvalidValue, match=rf"a positive number of milliseconds .*not {re.escape(repr(text))}"):
        parse_budget(text, model)


@pytest.mark.parametrize(
    ("text", "ms"), [("0.8", 0.8), ("0.8ms", 0.8), (" 0.8 ms ", 0.8), ("12", 12.0), ("1e-3", 1e-3), ("+2.5E1ms", 25.0)]
)
def test_milliseconds(text: str, ms: float, model: LatencyModel) -> None:
    assert parse_budget(text, model) == ms


@pytest.mark.parametrize(("text", "share"), [("50%", 0.5), ("12.5 %", 0.125), ("100%", 1.0), ("130%", 1.3)])
def test_a_share_of_the_largest_network(text: str, share: float, model: LatencyModel) -> None:
    [largest] = model.predict(TINY.encode([TINY.largest]))
    assert parse_budget(text, model) == pytest.approx(share * largest)
