"""Exact optima on once-for-all's own latency tables for a phone, as `shared/data/ofa-note10/README.md` states them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from hwnas.search import Problem, find_front, solve

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "note10.py"
spec = importlib.util.spec_from_file_location("note10", SCRIPT)
assert spec
assert spec.loader
note10 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(note10)

pytestmark = pytest.mark.skipif(not note10.TABLES.is_dir(), reason=f"the Note10 tables are not at {note10.TABLES}")
KNOWN = [(budget, optimum, note10.MS[budget]) for budget, optimum in note10.OPTIMA.items()]


@pytest.fixture(scope="module")
def loaded() -> Problem:
    return note10.note10_problem(None)


def test_latencies_are_those_of_once_for_alls_own_code(loaded: Problem) -> None:
    space = loaded.space
    assert (space.smallest["resolution"], space.largest["resolution"]) == (160, 224)
    ms = loaded.costs(space.encode([space.smallest, space.largest]))[:, 0]
    assert ms == pytest.approx([9.890, 92.398], abs=5e-4)


@pytest.mark.parametrize("strategy", ["exact", "milp"])
@pytest.mark.parametrize(("budget", "optimum", "ms"), KNOWN)
def test_the_optimum_is_found(loaded: Problem, budget: float, optimum: float, ms: float, strategy: str) -> None:
    found = solve(note10.note10_problem(budget, loaded=loaded), strategy, candidates=3)
    best, *others = found.candidates
    assert found.proved
    assert best.predicted_accuracy == pytest.approx(optimum, abs=1e-5)
    assert best.costs["note10"] == pytest.approx(ms, abs=5e-4)
    assert all(other.predicted_accuracy < best.predicted_accuracy for other in others)
    assert all(candidate.costs["note10"] <= budget for candidate in (best, *others))


@pytest.mark.parametrize("budget", note10.OPTIMA)
def test_the_program_agrees_to_the_last_digits(loaded: Problem, budget: float) -> None:
    problem = note10.note10_problem(budget, loaded=loaded)
    exact, program = (solve(problem, s, candidates=1).candidates[0] for s in ("exact", "milp"))
    assert exact.predicted_accuracy == pytest.approx(program.predicted_accuracy, abs=1e-9)


def test_the_optima_are_on_the_front(loaded: Problem) -> None:
    front = find_front(loaded).candidates
    for budget, optimum in note10.OPTIMA.items():
        within = [c for c in front if c.costs["note10"] <= budget]
        assert within[-1].predicted_accuracy == pytest.approx(optimum, abs=1e-5)
    assert [c.predicted_accuracy for c in front] == sorted(c.predicted_accuracy for c in front)


@pytest.mark.parametrize("strategy", ["nsga2", "evolution"])
@pytest.mark.parametrize(("budget", "optimum"), note10.OPTIMA.items())
def test_heuristics_come_near(loaded: Problem, budget: float, optimum: float, strategy: str) -> None:
    """Once-for-all's evolution ends 0.05 to 0.64 below the optimum."""
    [best] = solve(note10.note10_problem(budget, loaded=loaded), strategy, candidates=1).candidates
    assert optimum - 0.02 <= best.predicted_accuracy <= optimum + 1e-5
