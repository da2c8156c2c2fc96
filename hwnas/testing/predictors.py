"""Test suite for predictors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from hwnas.accuracy.predictors import FittedPredictor, fit_predictor
from hwnas.errors import InvalidValue
from hwnas.spaces import Codes, Space, make_space

_NETWORKS, _FRESH = 60, 120


def law(space: Space, codes: Codes) -> npt.NDArray[np.float64]:
    """A known value of networks, ``(n,)``, which equal networks share: of their MACs and of their number of ops."""
    macs = space.macs(codes) / space.macs(space.encode([space.largest]))
    ops = np.array([len(space.network(arch)) for arch in space.decode(codes)]) / len(space.network(space.largest))
    values: npt.NDArray[np.float64] = np.sqrt(macs) + 0.5 * ops
    return values


class PredictorSuite:
    """Tests of a predictor; a subclass, named Test..., provides its name as a class-scoped fixture `predictor`.

    A subclass may also provide another space as a class-scoped fixture `space`, if the predictor encodes only some.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def predictor(cls) -> str:
        """The name of the predictor under test; a subclass overrides it."""
        raise NotImplementedError("a subclass of PredictorSuite must define a class-scoped fixture `predictor`")

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> Space:
        """The space of the networks."""
        return make_space("nasbench201-tiny")

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, predictor: str, space: Space) -> FittedPredictor:
        """The predictor, fitted on a known law."""
        codes = space.sample(_NETWORKS, seed=0)
        return fit_predictor(predictor, space, codes, law(space, codes))

    def test_shapes_and_deviations(self, fitted: FittedPredictor, space: Space) -> None:
        for count in (0, 1, 7):
            mean, deviation = fitted.predict(space.sample(count, seed=1))
            assert mean.shape == deviation.shape == (count,)
            assert np.isfinite(mean).all()
            assert np.isfinite(deviation).all()
            assert (deviation >= 0).all()

    def test_the_seed_decides(self, predictor: str, fitted: FittedPredictor, space: Space) -> None:
        codes, fresh = space.sample(_NETWORKS, seed=0), space.sample(20, seed=1)
        again = fit_predictor(predictor, space, codes, law(space, codes))
        np.testing.assert_array_equal(fitted.predict(fresh), again.predict(fresh))

    def test_a_prediction_depends_on_its_network_only(self, fitted: FittedPredictor, space: Space) -> None:
        fresh = space.sample(20, seed=1)
        together = np.stack(fitted.predict(fresh))
        alone = np.concatenate([fitted.predict(fresh[i : i + 1]) for i in range(5)], axis=1)
        np.testing.assert_allclose(alone, together[:, :5], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(fitted.predict(space.decode(fresh)), together, rtol=1e-6)

    def test_better_than_the_mean_on_a_known_law(self, fitted: FittedPredictor, space: Space) -> None:
        fresh = space.sample(_FRESH, seed=1)
        expected = law(space, fresh)
        mean, _ = fitted.predict(fresh)
        constant = law(space, space.sample(_NETWORKS, seed=0)).mean()
        assert np.abs(mean - expected).mean() < 0.7 * np.abs(constant - expected).mean()
        assert stats.kendalltau(mean, expected).statistic > 0.5

    def test_values_may_have_any_unit(self, predictor: str, fitted: FittedPredictor, space: Space) -> None:
        codes, fresh = space.sample(_NETWORKS, seed=0), space.sample(20, seed=1)
        scaled = fit_predictor(predictor, space, codes, 1000 * law(space, codes) - 5e4)
        mean, deviation = fitted.predict(fresh)
        np.testing.assert_allclose(scaled.predict(fresh)[0], 1000 * mean - 5e4, rtol=1e-2, atol=20)
        np.testing.assert_allclose(scaled.predict(fresh)[1], 1000 * deviation, rtol=0.2, atol=20)

    def test_three_networks_are_enough_for_a_fit(self, predictor: str, space: Space) -> None:
        codes, fresh = space.sample(3, seed=0), space.sample(20, seed=1)
        mean, deviation = fit_predictor(predictor, space, codes, [0.1, 0.5, 0.3]).predict(fresh)
        assert np.isfinite([mean, deviation]).all()
        assert (np.abs(mean - 0.3) < 5).all()

    def test_equal_values_are_predicted(self, predictor: str, space: Space) -> None:
        codes, fresh = space.sample(12, seed=0), space.sample(20, seed=1)
        mean, deviation = fit_predictor(predictor, space, codes, np.full(12, 0.7)).predict(fresh)
        np.testing.assert_allclose(mean, 0.7, atol=0.2)
        assert np.isfinite(deviation).all()

    def test_equal_networks_with_other_values_are_averaged(self, predictor: str, space: Space) -> None:
        codes = space.sample(10, seed=0).repeat(2, axis=0)
        values = law(space, codes) + np.tile([0.05, -0.05], 10)
        mean, deviation = fit_predictor(predictor, space, codes, values).predict(codes)
        assert np.isfinite([mean, deviation]).all()
        np.testing.assert_array_equal(mean[::2], mean[1::2])

    def test_variables_with_one_value(self, predictor: str, space: Space) -> None:
        free = [variable for variable in space.variables if len(variable.values) > 1]
        fixed = space.fix(**{variable.name: variable.values[-1] for variable in free[::2]})
        codes, fresh = fixed.sample(20, seed=0), fixed.sample(20, seed=1)
        mean, deviation = fit_predictor(predictor, fixed, codes, law(fixed, codes)).predict(fresh)
        assert np.isfinite([mean, deviation]).all()

    def test_wrong_arguments_are_refused(self, predictor: str, space: Space) -> None:
        codes = space.sample(8, seed=0)
        values = law(space, codes)
        with pytest.raises(InvalidValue, match=r"at least 3 networks with their values, not 2"):
            fit_predictor(predictor, space, codes[:2], values[:2])
        with pytest.raises(InvalidValue, match=r"one value per network, \(8,\), not values of the shape \(7,\)"):
            fit_predictor(predictor, space, codes, values[:7])
        with pytest.raises(InvalidValue, match="the value of network 2 is nan"):
            fit_predictor(predictor, space, codes, [*values[:2], float("nan"), *values[3:]])
        fitted = fit_predictor(predictor, space, codes, values)
        wrongs: list[npt.NDArray[Any]] = [codes[0], codes[:, :-1], codes.astype(np.float64)]
        for wrong in wrongs:
            with pytest.raises(InvalidValue, match=f"codes of {space.name} must be a uint8 matrix"):
                fitted.predict(wrong)
            with pytest.raises(InvalidValue, match=f"codes of {space.name} must be a uint8 matrix"):
                fit_predictor(predictor, space, wrong, values)
