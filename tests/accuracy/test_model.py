from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

from hwnas.accuracy import AccuracyModel, fit_accuracy, spread_over_cost
from hwnas.accuracy.ensemble import fit_ensembles
from hwnas.accuracy.stagewise import fit_score, logit, parameters, single
from hwnas.accuracy.table import read_accuracies
from hwnas.errors import DataError, InvalidValue
from hwnas.search.exact.decompose import Decomposition
from hwnas.spaces import Codes, Space, make_space

WHOLE = make_space("mobilenetv3-tiny")


def additive(space: Space, codes: Codes, seed: int) -> np.ndarray:
    """Scores with an effect of each value of each variable, where it matters; larger is mostly better."""
    rng = np.random.default_rng(seed)
    effects = {v.name: np.sort(rng.uniform(0, 0.2, len(v.values))) for v in space.variables}
    found = []
    for arch in space.decode(codes):
        total = -1.0
        for variable in space.variables:
            if space.has_effect(variable.name, arch):
                total += float(effects[variable.name][variable.values.index(arch[variable.name])])
        found.append(total)
    return np.array(found)


# -- the stage-wise model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_ranks_networks_that_it_never_saw(seed: int) -> None:
    codes, fresh = WHOLE.sample(120, seed=seed), WHOLE.sample(300, seed=100 + seed)
    score = fit_score(WHOLE, codes, additive(WHOLE, codes, seed))
    exact = additive(WHOLE, fresh, seed)
    assert stats.kendalltau(score(fresh), exact).statistic > 0.95
    assert np.abs(score(fresh) - exact).mean() < 0.02


def test_a_kernel_may_be_worth_more_at_one_resolution() -> None:
    """A plain sum over variables cannot say this; the model orders networks by it."""
    codes = WHOLE.sample(400, seed=3)
    resolution, kernel = (codes[:, WHOLE.column[name]].astype(float) for name in ("resolution", "kernel_1_1"))
    scores = 0.8 + 0.1 * (resolution == 2) * kernel
    score = fit_score(WHOLE, codes[:200], scores[:200])
    np.testing.assert_allclose(score(codes[200:]), scores[200:], atol=0.01)


def test_an_expansion_may_be_worth_more_with_one_kernel() -> None:
    codes = WHOLE.sample(500, seed=4)
    kernel, expansion = (codes[:, WHOLE.column[name]].astype(float) - 1 for name in ("kernel_2_1", "expansion_2_1"))
    scores = 0.5 + 0.1 * kernel * expansion
    score = fit_score(WHOLE, codes[:250], scores[:250])
    assert np.corrcoef(score(codes[250:]), scores[250:])[0, 1] > 0.98


def test_what_does_not_matter_has_no_effect() -> None:
    codes = WHOLE.sample(80, seed=3)
    score = fit_score(WHOLE, codes, additive(WHOLE, codes, 3))
    shallow = WHOLE.encode([WHOLE.smallest]).repeat(9, axis=0)
    columns = [WHOLE.column[name] for name in ("kernel_1_2", "expansion_1_3", "kernel_3_3")]
    shallow[:, columns] = np.random.default_rng(0).integers(0, 3, (9, 3))
    assert len(np.unique(shallow, axis=0)) > 1
    np.testing.assert_allclose(score(shallow), score(shallow)[0], rtol=1e-12)
    # Where the depth lets the block stand, its kernel counts.
    deep = WHOLE.encode([WHOLE.largest]).repeat(3, axis=0)
    deep[:, WHOLE.column["kernel_1_2"]] = range(3)
    assert len(set(score(deep))) == 3


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "mobilenetv3", "resnet50"])
def test_interactions_leave_a_space_in_parts(name: str) -> None:
    """Or exact search would be lost."""
    space = make_space(name)
    codes = space.sample(parameters(space) + 20, seed=0)
    score = fit_score(space, codes, additive(space, codes, 0))
    parts = Decomposition.of(space, space.macs, score).parts
    assert max(len(part.codes) for part in parts) <= 10_000
    assert max(len(part.after) for part in parts) <= 3


# -- model and ensemble ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy() -> Callable[[Codes, int], np.ndarray]:
    """Accuracies around 0.8 with an interaction between stages, and the noise of an evaluation."""

    def accuracies(codes: Codes, seed: int) -> np.ndarray:
        a, b = (codes[:, WHOLE.column[n]].astype(float) - 1 for n in ("depth_1", "depth_3"))
        noise = np.random.default_rng(seed).normal(0, 0.05, len(codes))
        return special.expit(1.4 + additive(WHOLE, codes, 5) - 0.15 * a * b + noise)

    return accuracies


@pytest.fixture(scope="module")
def model(noisy: Callable[[Codes, int], np.ndarray]) -> AccuracyModel:
    codes = spread_over_cost(WHOLE, 300, seed=0)
    return fit_accuracy(WHOLE, codes, noisy(codes, 0))


def test_what_it_says_of_itself_holds_for_fresh_networks(
    model: AccuracyModel, noisy: Callable[[Codes, int], np.ndarray]
) -> None:
    fresh = spread_over_cost(WHOLE, 300, seed=1)
    accuracies = noisy(fresh, 1)
    mean, sigma = model.predict(fresh)
    for name, predicted in (("stagewise", model(fresh)), ("ensemble", mean)):
        quality = model.quality[name]
        assert stats.kendalltau(predicted, accuracies).statistic == pytest.approx(quality.kendall_tau, abs=0.05)
        assert np.sqrt(((predicted - accuracies) ** 2).mean()) == pytest.approx(quality.rmse, rel=0.2)
    within = (np.abs(mean - accuracies) <= sigma).mean()
    assert within == pytest.approx(0.68, abs=0.12)
    assert model.quality["ensemble"].within_one_sigma == pytest.approx(0.68, abs=0.08)
    assert model.subnets == 300


def test_the_ensemble_sees_what_ties_stages_together(model: AccuracyModel) -> None:
    """The stage-wise model cannot: the interaction here is between depths of two stages."""
    assert model.weight > 0.1
    assert model.quality["ensemble"].rmse < model.quality["stagewise"].rmse


def test_accuracy_rises_with_the_score(model: AccuracyModel) -> None:
    codes = WHOLE.sample(1000, seed=2)
    order = np.argsort(model.score(codes))
    assert (np.diff(model(codes)[order]) >= 0).all()
    assert ((model(codes) > 0) & (model(codes) < 1)).all()


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "resnet50"])
def test_lookups_are_the_first_layers_of_the_ensemble(name: str) -> None:
    """It is fitted on features and predicts by lookups; here the layers once more, in double precision."""
    space = make_space(name)
    codes, fresh = space.sample(100, seed=6), space.sample(2500, seed=7)
    [ensemble] = fit_ensembles(space, [(codes, additive(space, codes, 6))], seed=0)
    features = np.concatenate([term(fresh) for term in single(space)], axis=1)
    x = (features - ensemble.inputs[0]) / ensemble.inputs[1]
    weights = [layer.double().numpy() for layer in ensemble.layers]
    for i in range(0, len(weights), 2):
        x = (x / (1 + np.exp(-x)) if i else x) @ weights[i] + weights[i + 1]
    mean, scale = ensemble.outputs
    np.testing.assert_allclose(ensemble(fresh), mean + scale * x[..., 0], rtol=1e-5, atol=1e-5)


def test_the_seed_decides(noisy: Callable[[Codes, int], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.accuracy.ensemble._STEPS", 40)
    codes, fresh = spread_over_cost(WHOLE, 60, seed=0), WHOLE.sample(50, seed=3)
    first, again, other = (fit_accuracy(WHOLE, codes, noisy(codes, 0), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.predict(fresh), again.predict(fresh))
    assert first.quality == again.quality
    assert not np.array_equal(first.predict(fresh), other.predict(fresh))


def test_equal_accuracies_give_a_constant() -> None:
    codes = WHOLE.sample(60, seed=4)
    model = fit_accuracy(WHOLE, codes, np.full(60, 0.7))
    fresh = WHOLE.sample(20, seed=5)
    np.testing.assert_allclose(model(fresh), 0.7, atol=1e-6)
    mean, sigma = model.predict(fresh)
    np.testing.assert_allclose(mean, 0.7, atol=1e-2)
    assert np.isfinite(sigma).all()


def test_accuracies_of_none_and_all_are_finite_scores() -> None:
    assert np.isfinite(logit(np.array([0.0, 1.0]))).all()


def test_variables_with_one_value_left(space: Space) -> None:
    codes = space.sample(60, seed=0)
    model = fit_accuracy(space, codes, special.expit(additive(space, codes, 0)))
    fresh = space.sample(40, seed=1)
    assert stats.kendalltau(model(fresh), additive(space, fresh, 0)).statistic > 0.95


@pytest.mark.parametrize("networks", [0, 7, 44])
def test_fewer_networks_than_parameters(networks: int) -> None:
    assert parameters(WHOLE) == 45
    with pytest.raises(
        InvalidValue, match=f"has 45 parameters and needs at least as many evaluated networks, not {networks}"
    ):
        fit_accuracy(WHOLE, WHOLE.sample(networks, seed=0), np.ones(networks))


@pytest.mark.parametrize("wrong", [76.5, -0.1, float("nan")])
def test_accuracies_are_fractions(wrong: float) -> None:
    accuracies = np.full(60, 0.5)
    accuracies[3] = wrong
    with pytest.raises(InvalidValue, match="as a fraction from 0 to 1"):
        fit_accuracy(WHOLE, WHOLE.sample(60, seed=0), accuracies)


# -- which networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [2, 10, 300])
def test_networks_are_spread_over_cost(networks: int) -> None:
    codes = spread_over_cost(WHOLE, networks, seed=1)
    macs = WHOLE.macs(codes)
    ends = WHOLE.macs(WHOLE.encode([WHOLE.smallest, WHOLE.largest]))
    assert len(np.unique(codes, axis=0)) == len(codes) == networks
    assert (macs.min(), macs.max()) == (ends.min(), ends.max())
    if networks == 300:
        counts, _ = np.histogram(macs, bins=10, range=(ends.min(), ends.max()))
        assert counts.min() >= 20
        plain, _ = np.histogram(WHOLE.macs(WHOLE.sample(300, seed=1)), bins=10, range=(ends.min(), ends.max()))
        assert plain.min() < 5
    np.testing.assert_array_equal(codes, spread_over_cost(WHOLE, networks, seed=1))


def test_networks_without_edges_are_left_out() -> None:
    cells = make_space("nasbench201-tiny")
    codes = spread_over_cost(cells, 40, seed=0)
    assert all(map(cells.depends_on_image, cells.decode(codes)))
    assert cells.smallest in cells.decode(codes)
    few = cells.fix(**dict.fromkeys(["edge_0_1", "edge_0_2", "edge_1_2"], 0), edge_0_3=[0, 4])
    assert len(spread_over_cost(few, few.size, seed=0)) == few.size == 50  # where all are wanted, they are among them


def test_a_small_space_gives_all_its_networks(space: Space) -> None:
    small = space.fix(resolution=space.variable("resolution").values[0])
    assert len(spread_over_cost(small, small.size, seed=0)) == small.size
    with pytest.raises(InvalidValue, match="must be from 2 to 18, not 19"):
        spread_over_cost(small, small.size + 1, seed=0)


# -- a user's own accuracies -------------------------------------------------------------------------------


@pytest.fixture
def rows() -> list[dict[str, str]]:
    archs = WHOLE.decode(WHOLE.sample(60, seed=0))
    return [{**{k: str(v) for k, v in arch.items()}, "accuracy": f"0.{i + 10}"} for i, arch in enumerate(archs)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")
    return path


def test_own_accuracies_come_back(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    codes, accuracies = read_accuracies(write(tmp_path / "a.csv", rows), WHOLE)
    np.testing.assert_array_equal(codes, WHOLE.sample(60, seed=0))
    np.testing.assert_array_equal(accuracies, [float(row["accuracy"]) for row in rows])


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("resolution", "25", "line 3: resolution is '25'; choose from 24, 28, 32"),
        ("kernel_1_1", "", "line 3: kernel_1_1 is ''"),
        ("kernel_1_1", "3,3", "line 3: the row has more or fewer values than the 23 columns"),
        ("accuracy", "76.5", "line 3: accuracy is '76.5'; it should be a fraction between 0 and 1"),
        ("accuracy", "good", "line 3: accuracy is 'good'"),
        ("accuracy", "nan", "line 3: accuracy is 'nan'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: list[dict[str, str]], column: str, value: str, said: str) -> None:
    rows[1][column] = value
    with pytest.raises(DataError, match=said):
        read_accuracies(write(tmp_path / "a.csv", rows), WHOLE)


def test_a_table_as_spreadsheets_write_it(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    path = write(tmp_path / "a.csv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_accuracies(path, WHOLE)[0]) == 60
    path.write_text(path.read_text(encoding="utf-8-sig").replace(",accuracy", ",accuracy,accuracy", 1))
    with pytest.raises(DataError, match="duplicate: accuracy"):
        read_accuracies(path, WHOLE)


def test_accuracies_of_another_space(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    with pytest.raises(DataError, match=r"not a table of accuracies of resnet50: .* missing: depth_1|missing: depth_4"):
        read_accuracies(write(tmp_path / "a.csv", rows), make_space("resnet50"))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_accuracies(tmp_path / "b.csv", WHOLE)
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_accuracies(tmp_path / "none.csv", WHOLE)


def test_a_model_is_a_value(model: AccuracyModel) -> None:
    assert replace(model, weight=0.0).predict(WHOLE.sample(3, seed=0))[0] == pytest.approx(
        model(WHOLE.sample(3, seed=0))
    )
