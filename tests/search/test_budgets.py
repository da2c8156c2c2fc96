from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hwnas.errors import InfeasibleBudget, InvalidValue, UnknownName
from hwnas.search import Objective, Problem, check_feasible, parse_budget, resource, solve
from hwnas.search.objectives import RESOURCES
from hwnas.spaces import Codes, SlotSum, Space, make_space

MakeProblem = Callable[..., Callable[[float | None], Problem]]
MakeSum = Callable[[Space, np.random.Generator], SlotSum]
BruteForce = Callable[[Space], Codes]

TINY = make_space("mobilenetv3-tiny")


@pytest.fixture
def latency(make_problem: MakeProblem) -> Objective:
    return make_problem(TINY, 0)(None).objectives[0]


# -- as text ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("0", "0ms", "-1", "-1ms", "0%", "-5%", "nan", "inf", "-inf", "nan%", "1e999"),
        *("", " ", "%", "ms", "abc", "e", ".", "1e", "1.2.3", "--5", "5s", "5 %%", "1,5", "0x10", "5 m s"),
    ],
)
def test_what_is_no_budget(text: str, latency: Objective) -> None:
    with pytest.raises(InvalidValue, match=rf"a budget must be .*50%.*not {re.escape(repr(text))}"):
        parse_budget(text, latency, TINY)


@pytest.mark.parametrize(
    ("text", "ms"), [("0.8", 0.8), ("0.8ms", 0.8), (" 0.8 ms ", 0.8), ("12", 12.0), ("1e-3", 1e-3), ("+2.5E1ms", 25.0)]
)
def test_milliseconds(text: str, ms: float, latency: Objective) -> None:
    assert parse_budget(text, latency, TINY) == ms


@pytest.mark.parametrize(("text", "share"), [("50%", 0.5), ("12.5 %", 0.125), ("100%", 1.0), ("130%", 1.3)])
def test_a_share_of_the_largest_network(text: str, share: float, latency: Objective) -> None:
    for objective in (latency, resource(TINY, "params")):
        [largest] = objective.total(TINY.encode([TINY.largest]))
        assert parse_budget(text, objective, TINY) == pytest.approx(share * largest)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("macs", "3M", 3e6), ("params", "50K", 5e4), ("params", "70000", 7e4), ("size_bytes", "0.2MB", 2e5)],
)
def test_numbers_and_bytes(name: str, text: str, value: float) -> None:
    assert parse_budget(text, resource(TINY, name), TINY) == pytest.approx(value)


@pytest.mark.parametrize(("name", "text"), [("macs", "3ms"), ("params", "3MB"), (None, "3M"), (None, "3MB")])
def test_the_unit_of_something_else(name: str | None, text: str, latency: Objective) -> None:
    with pytest.raises(InvalidValue, match=rf"'{text}' is not a budget of"):
        parse_budget(text, resource(TINY, name) if name else latency, TINY)


@pytest.mark.parametrize(
    ("name", "text"), [(None, "1.1e9ms"), (None, "1e15"), (None, "1e300%"), (None, "1e308%"), ("macs", "1e308G")]
)
def test_more_than_any_network_takes(name: str | None, text: str, latency: Objective) -> None:
    """A job would find out when it writes its figures, the last that it does."""
    with pytest.raises(InvalidValue, match=rf"the budget '{text}' of .* must be at most "):
        parse_budget(text, resource(TINY, name) if name else latency, TINY)


def test_an_unknown_objective() -> None:
    with pytest.raises(UnknownName, match=r"unknown objective 'flops'.*macs, params, size_bytes") as caught:
        resource(TINY, "flops")
    assert set(caught.value.choices) == set(RESOURCES)


# -- of a problem ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_positive(budget: float, make_problem: MakeProblem) -> None:
    with pytest.raises(InvalidValue, match=f"the budget of board/made-up must be a positive number, not {budget}"):
        make_problem(TINY, 0)(budget)


def test_a_budget_of_no_objective(make_problem: MakeProblem) -> None:
    problem = make_problem(TINY, 0)(None)
    with pytest.raises(UnknownName, match=r"unknown objective 'board/mad-up'. Did you mean 'board/made-up'"):
        replace(problem, budgets={"board/mad-up": 1.0})
    with pytest.raises(InvalidValue, match="objectives with different names, not none"):
        replace(problem, objectives=())
    with pytest.raises(InvalidValue, match="different names, not board/made-up, board/made-up"):
        replace(problem, objectives=problem.objectives * 2)


@pytest.mark.parametrize("seed", range(5))
def test_an_impossible_budget_names_the_fastest_network(
    seed: int, make_problem: MakeProblem, brute_force: BruteForce, small_spaces: dict[str, Space]
) -> None:
    small = small_spaces["three stages"]
    make, codes = make_problem(small, seed, margin=0.02), brute_force(small)
    ms = make(None).costs(codes)[:, 0]
    [fastest] = small.decode(codes[[ms.argmin()]])
    budget = float(ms.min())  # as fast as the fastest, but without its margin
    with pytest.raises(InfeasibleBudget) as caught:
        solve(make(budget))
    assert caught.value.objectives == ("board/made-up",)
    assert caught.value.lowest == pytest.approx(ms.min())
    assert caught.value.arch == fastest
    said = str(caught.value)
    assert f"no network of mobilenetv3-tiny is within {budget:.4g} ms on board/made-up" in said
    assert f"predicted at {ms.min():.4g} ms" in said
    assert said.endswith(", ".join(f"{name}={value}" for name, value in small.describe(fastest).items()))
    # Who asks for the budget that the message names gets a network.
    needed = re.search(r"needs a budget of ([0-9.e-]+) ms \(at 95% confidence\)", said)
    assert needed
    assert solve(make(float(needed[1]))).candidates


@pytest.fixture
def opposed(make_gain: MakeSum) -> Problem:
    """Three costs of which each is small where the others are large."""
    names = ("kernel_1_1", "kernel_2_1", "kernel_3_1")
    costs = []
    for name in names:
        arrays = tuple(np.array([3.0, 1.0, 0.5]) if n == name else np.array([0.5, 2.0, 4.0]) for n in names)
        total = SlotSum(constant=0.0, axes=tuple((TINY.column[n],) for n in names), arrays=arrays)
        costs.append(Objective(name=f"{name}/r", unit="ms", total=total))
    return Problem(space=TINY, accuracy=make_gain(TINY, np.random.default_rng(0)), objectives=tuple(costs))


def test_contradicting_budgets_say_which_two(opposed: Problem) -> None:
    a, b, c = (o.name for o in opposed.objectives)
    problem = replace(opposed, budgets={a: 2.0, b: 4.6, c: 100.0}, confidence=None)
    with pytest.raises(
        InfeasibleBudget, match=f"budgets 2 ms of {a} and 4.6 ms of {b} contradict each other"
    ) as caught:
        solve(problem)
    assert caught.value.objectives == (a, b)
    codes = TINY.sample(200_000, seed=0)
    points = problem.costs(codes)
    assert caught.value.lowest == pytest.approx(points[points[:, 0] <= 2.0, 1].min())
    needed = re.search(r"needs at least ([0-9.e-]+) ms", str(caught.value))
    assert needed
    assert solve(replace(problem, budgets={a: 2.0, b: float(needed[1]), c: 100.0})).candidates


def test_three_budgets_of_which_any_two_can_be_kept(opposed: Problem) -> None:
    points = opposed.costs(TINY.sample(200_000, seed=0))
    names = [o.name for o in opposed.objectives]
    pairs = max(points[:, [i, j]].max(axis=1).min() for i, j in ((0, 1), (0, 2), (1, 2)))
    all_three = points.max(axis=1).min()
    assert pairs < all_three
    budget = float((pairs + all_three) / 2)
    problem = replace(opposed, budgets=dict.fromkeys(names, budget))
    check_feasible(problem)
    for strategy in ("exact", "milp"):
        with pytest.raises(InfeasibleBudget, match="is within all of these budgets, although any two") as caught:
            solve(problem, strategy)
        assert caught.value.objectives == tuple(names)


@pytest.mark.parametrize("name", RESOURCES)
def test_a_resource_of_a_network(name: str) -> None:
    total = resource(TINY, name).total
    codes = TINY.sample(20, seed=0)
    by_hand = {
        "macs": lambda ops: sum(op.macs for op in ops),
        "params": lambda ops: sum(op.params for op in ops),
        "size_bytes": lambda ops: 4 * sum(op.params for op in ops),
        "peak_activation_bytes": lambda ops: 4 * max(op.activations for op in ops),
    }[name]
    expected = [by_hand([op for _, op in TINY.ops(arch)]) for arch in TINY.decode(codes)]
    np.testing.assert_allclose(total(codes), expected)
