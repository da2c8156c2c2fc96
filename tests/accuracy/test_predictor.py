from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hwnas.accuracy import fit_accuracy
from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, Space, make_space


@pytest.fixture(scope="module")
def whole() -> Space:
    return make_space("mobilenetv3-tiny")


def additive(space: Space, codes: Codes, seed: int) -> np.ndarray:
    """Accuracies with an effect of each value of each variable, where it matters; larger is mostly better."""
    rng = np.random.default_rng(seed)
    effects = {v.name: np.sort(rng.uniform(0, 0.02, len(v.values))) for v in space.variables}
    found = []
    for arch in space.decode(codes):
        total = 0.6
        for variable in space.variables:
            if variable.requires is None or arch[variable.requires[0]] >= variable.requires[1]:
                total += float(effects[variable.name][variable.values.index(arch[variable.name])])
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_networks_that_it_never_saw(whole: Space, seed: int) -> None:
    codes = whole.sample(120, seed=seed)
    model, error = fit_accuracy(whole, codes, additive(whole, codes, seed))
    fresh = whole.sample(300, seed=100 + seed)
    exact = additive(whole, fresh, seed)
    assert stats.kendalltau(model(fresh), exact).statistic > 0.95
    assert np.abs(model(fresh) - exact).mean() < 2e-3
    assert error < 2e-3


def test_the_error_it_states_is_that_of_fresh_networks(whole: Space) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 120)
    codes = whole.sample(120, seed=0)
    model, error = fit_accuracy(whole, codes, additive(whole, codes, 0) + noise)
    fresh = whole.sample(400, seed=9)
    real = additive(whole, fresh, 0) + np.random.default_rng(1).normal(0, 0.01, 400)
    assert error == pytest.approx(np.abs(model(fresh) - real).mean(), rel=0.35)


def test_a_prediction_is_the_constant_and_the_effects(whole: Space) -> None:
    codes = whole.sample(60, seed=1)
    model, _ = fit_accuracy(whole, codes, additive(whole, codes, 1))
    fresh = whole.sample(20, seed=2)
    for row, value in zip(fresh, model(fresh), strict=True):
        terms = [array[tuple(row[list(axes)])] for axes, array in zip(model.axes, model.arrays, strict=True)]
        assert value == pytest.approx(model.constant + sum(terms))
    # One term a variable, and one for each variable together with the resolution, which all stages read.
    assert whole.shared == ("resolution",)
    assert len(model.arrays) == 2 * len(whole.variables) - 1


def test_a_kernel_may_be_worth_more_at_one_resolution(whole: Space) -> None:
    """A plain sum over variables cannot say this; the model orders networks by it."""
    codes = whole.sample(400, seed=3)
    resolution, kernel = (codes[:, whole.column[name]].astype(float) for name in ("resolution", "kernel_1_1"))
    accuracies = 0.8 + 0.01 * (resolution == 2) * kernel
    model, error = fit_accuracy(whole, codes[:200], accuracies[:200])
    np.testing.assert_allclose(model(codes[200:]), accuracies[200:], atol=1e-4)
    assert error < 1e-4


def test_what_does_not_matter_has_no_effect(whole: Space) -> None:
    codes = whole.sample(60, seed=3)
    model, _ = fit_accuracy(whole, codes, additive(whole, codes, 3))
    shallow = whole.encode([whole.smallest]).repeat(9, axis=0)
    columns = [whole.column[name] for name in ("kernel_1_2", "expansion_1_3", "kernel_3_3")]
    shallow[:, columns] = np.random.default_rng(0).integers(0, 3, (9, 3))
    assert len(np.unique(shallow, axis=0)) > 1
    assert len(set(model(shallow))) == 1
    # Where the depth lets the block stand, its kernel counts.
    deep = whole.encode([whole.largest]).repeat(3, axis=0)
    deep[:, whole.column["kernel_1_2"]] = range(3)
    assert len(set(model(deep))) == 3


def test_equal_accuracies_give_a_constant(whole: Space) -> None:
    codes = whole.sample(30, seed=4)
    model, error = fit_accuracy(whole, codes, np.full(30, 0.7))
    np.testing.assert_allclose(model(whole.sample(20, seed=5)), 0.7)
    assert error == pytest.approx(0)


def test_variables_with_one_value_left(space: Space) -> None:
    codes = space.sample(40, seed=0)
    model, _ = fit_accuracy(space, codes, additive(space, codes, 0))
    fresh = space.sample(40, seed=1)
    assert stats.kendalltau(model(fresh), additive(space, fresh, 0)).statistic > 0.95


@pytest.mark.parametrize("networks", [0, 7])
def test_too_few_networks(whole: Space, networks: int) -> None:
    with pytest.raises(InvalidValue, match=f"at least 8 evaluated networks, not {networks}"):
        fit_accuracy(whole, whole.sample(networks, seed=0), np.ones(networks))
