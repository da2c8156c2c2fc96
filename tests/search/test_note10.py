"""Exact optima on once-for-all's own latency tables for a phone, as `shared/data/ofa-note10/README.md` states them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.latency.ofa_yaml import parse_ofa_yaml
from hwnas.search import Objective, Problem, find_front, solve
from hwnas.spaces import SlotSum, Space, make_space

TABLES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "ofa-note10"
RESOLUTIONS = (160, 176, 192, 208, 224)

pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason=f"the Note10 tables are not at {TABLES}")


@pytest.fixture(scope="module")
def note10() -> Space:
    return make_space("mobilenetv3-w1.2").fix(resolution=RESOLUTIONS)


@pytest.fixture(scope="module")
def latency(note10: Space) -> SlotSum:
    """The tables as one sum: a row's time differs a little from file to file, so each resolution has its own."""
    sums = []
    for resolution in RESOLUTIONS:
        path = TABLES / f"{resolution}_lookup_table.yaml"
        means = parse_ofa_yaml(path.read_bytes(), path.name)
        sums.append(note10.fix(resolution=resolution).slot_sum(lambda op, means=means: means[op].latency_ms))
    assert all(slot.variables[0] == "resolution" for slot in note10.slots)
    arrays = tuple(np.concatenate(parts) for parts in zip(*(s.arrays for s in sums), strict=True))
    return replace(sums[0], arrays=arrays)


@pytest.fixture(scope="module")
def accuracy(note10: Space) -> SlotSum:
    weights, by_expansion, by_kernel = (1, 1.1, 1.2, 1.3, 1.6), {3: 0, 4: 0.4, 6: 1}, {3: 0, 5: 0.6, 7: 1}
    axes: list[tuple[int, ...]] = [(note10.column["resolution"],)]
    arrays = [np.array([0, 0.8, 1.5, 2.1, 2.6])]
    for s in range(5):
        for j in range(4):
            names = (f"depth_{s + 1}", f"kernel_{s + 1}_{j + 1}", f"expansion_{s + 1}_{j + 1}")
            array = np.zeros((3, 3, 3))
            for d, depth in enumerate((2, 3, 4)):
                for k, kernel in enumerate((3, 5, 7)):
                    for e, expansion in enumerate((3, 4, 6)):
                        if j < depth:
                            quirk = zlib.crc32(f"{s}.{j}.{kernel}.{expansion}".encode("ascii")) % 1000 / 1000 - 0.5
                            size = 0.2 + 0.5 * by_expansion[expansion] + 0.3 * by_kernel[kernel]
                            array[d, k, e] = weights[s] * 0.8**j * size + 0.05 * quirk
            axes.append(tuple(note10.column[name] for name in names))
            arrays.append(array)
    return SlotSum(constant=60.0, axes=tuple(axes), arrays=tuple(arrays))


def test_latencies_are_those_of_once_for_alls_own_code(note10: Space, latency: SlotSum) -> None:
    smallest = note10.smallest
    assert (smallest["resolution"], note10.largest["resolution"]) == (160, 224)
    ms = latency(note10.encode([smallest, note10.largest]))
    assert ms == pytest.approx([9.890, 92.398], abs=5e-4)


KNOWN = [(20, 71.52598, 19.997), (25, 73.76742, 24.928), (40, 77.82220, 39.887)]


@pytest.fixture(scope="module")
def make(note10: Space, latency: SlotSum, accuracy: SlotSum) -> Callable[..., Problem]:
    objective = Objective(name="note10", unit="ms", total=latency)

    def problem(budget: float | None, seed: int = 0) -> Problem:
        budgets = {} if budget is None else {"note10": budget}
        return Problem(space=note10, accuracy=accuracy, objectives=(objective,), budgets=budgets, seed=seed)

    return problem


@pytest.mark.parametrize("strategy", ["exact", "milp"])
@pytest.mark.parametrize(("budget", "optimum", "ms"), KNOWN)
def test_the_optimum_is_found(
    make: Callable[..., Problem], budget: float, optimum: float, ms: float, strategy: str
) -> None:
    found = solve(make(budget), strategy, candidates=3)
    best, *others = found.candidates
    assert found.proved
    assert best.predicted_accuracy == pytest.approx(optimum, abs=1e-5)
    assert best.costs["note10"] == pytest.approx(ms, abs=5e-4)
    assert all(other.predicted_accuracy < best.predicted_accuracy for other in others)
    assert all(candidate.costs["note10"] <= budget for candidate in (best, *others))


@pytest.mark.parametrize("budget", [budget for budget, _, _ in KNOWN])
def test_the_program_agrees_to_the_last_digits(make: Callable[..., Problem], budget: float) -> None:
    exact, program = (solve(make(budget), s, candidates=1).candidates[0] for s in ("exact", "milp"))
    assert exact.predicted_accuracy == pytest.approx(program.predicted_accuracy, abs=1e-9)


def test_the_optima_are_on_the_front(make: Callable[..., Problem]) -> None:
    front = find_front(make(None)).candidates
    for budget, optimum, _ in KNOWN:
        within = [c for c in front if c.costs["note10"] <= budget]
        assert within[-1].predicted_accuracy == pytest.approx(optimum, abs=1e-5)
    assert [c.predicted_accuracy for c in front] == sorted(c.predicted_accuracy for c in front)


@pytest.mark.parametrize("strategy", ["nsga2", "evolution"])
@pytest.mark.parametrize(("budget", "optimum"), [(budget, optimum) for budget, optimum, _ in KNOWN])
def test_heuristics_come_near(make: Callable[..., Problem], budget: float, optimum: float, strategy: str) -> None:
    """Once-for-all's evolution ends 0.05 to 0.64 below the optimum."""
    [best] = solve(make(budget), strategy, candidates=1).candidates
    assert optimum - 0.02 <= best.predicted_accuracy <= optimum + 1e-5
