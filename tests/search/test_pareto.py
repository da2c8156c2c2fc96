from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.search.exact.pareto import merged, pareto

Floats = np.ndarray


def brute_force(points: Floats) -> set[tuple[float, ...]]:
    """The undominated points, by comparing all with all."""
    below = (points[:, None] <= points[None]).all(axis=2) & (points[:, None] < points[None]).any(axis=2)
    return {tuple(p) for p in points[~below.any(axis=0)].tolist()}


def some_points(seed: int, n: int, dimensions: int, *, levels: int | None) -> Floats:
    """Points near a plane, so that many are undominated; with few levels many are equal in some dimension."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, dimensions))
    points[:, -1] += dimensions - points.sum(axis=1) * rng.uniform(0, 1)
    return np.floor(points * levels) if levels else points


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("levels", [None, 3, 30])
@pytest.mark.parametrize("n", [1, 2, 50, 257, 1500])
def test_the_front_is_what_no_other_dominates(n: int, levels: int | None, dimensions: int) -> None:
    points = some_points(n + dimensions, n, dimensions, levels=levels)
    front = points[pareto(points)]
    assert {tuple(p) for p in front.tolist()} == brute_force(points)
    assert len(front) == len(brute_force(points)), "of equal points one counts"
    assert (np.diff(front[:, 0]) >= 0).all()


@given(
    st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.integers(-3, 3).map(float), min_size=d, max_size=d), min_size=1, max_size=40)
    )
)
def test_small_fronts(rows: list[list[float]]) -> None:
    points = np.array(rows)
    front = points[pareto(points)].tolist()
    assert {tuple(p) for p in front} == brute_force(points)


def test_of_equal_points_the_first_counts() -> None:
    points = np.array([[2.0, 1.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    assert pareto(points).tolist() == [1, 0]
    assert pareto(np.zeros((300, 3))).tolist() == [0]


def test_an_empty_set_has_an_empty_front() -> None:
    assert len(pareto(np.zeros((0, 1)))) == len(pareto(np.zeros((0, 3)))) == 0


@pytest.mark.parametrize("together", [1, 7, 10**6])
def test_merging_combines_all_with_all(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.search.exact.pareto.COMBINATIONS", together)
    a, b = some_points(0, 30, 3, levels=None), some_points(1, 40, 3, levels=None)
    combine = (np.add, np.maximum, np.add)
    points, i, j = merged(a, b, combine)
    every = np.stack([f.outer(a[:, d], b[:, d]).reshape(-1) for d, f in enumerate(combine)], axis=1)
    assert {tuple(p) for p in points.tolist()} == brute_force(every)
    for d, f in enumerate(combine):
        np.testing.assert_array_equal(points[:, d], f(a[i, d], b[j, d]))
