from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, MissingOp, TableError
from hwnas.latency import LatencyModel, LatencyTable, fit_model, load_model, read_table, write_table
from hwnas.latency.model import Floats, explain
from hwnas.spaces import Codes, Domain, Space, make_space
from hwnas.targets import Target

Make = Callable[..., LatencyTable]

FACTORS = {"stem": 1.25, "stage1": 1.05, "stage2": 1.4, "stage3": 0.9, "head": 1.1}
OVERHEAD_MS = 0.003


@pytest.fixture(scope="module")
def whole() -> Space:
    return make_space("mobilenetv3-tiny")


@pytest.fixture(scope="module")
def table(whole: Space, this: Target, make_table: Make) -> LatencyTable:
    return make_table(whole, this)


def truth(space: Space, table: LatencyTable, codes: Codes, *, noise: float = 0.0, seed: int = 0) -> Floats:
    """Latencies of a machine that is as the model believes, written out network by network."""
    ms = [
        sum(FACTORS[slot.group] * table.latency_ms(op) + OVERHEAD_MS for slot, op in space.ops(arch))
        for arch in space.decode(codes)
    ]
    return np.array(ms) * (1 + noise * np.random.default_rng(seed).standard_normal(len(codes)))


def fitted(space: Space, table: LatencyTable, *, networks: int = 16, noise: float = 0.0, seed: int = 0) -> LatencyModel:
    codes = space.sample(networks, seed=seed)
    fit = fit_model(
        table,
        space,
        codes,
        truth(space, table, codes, noise=noise, seed=seed),
        domain=Domain.of(space).model_dump(),
        seed=seed,
        measurement={},
    )
    return load_model(table.with_fit(fit), space)


@pytest.mark.parametrize("seed", range(4))
def test_noisy_calibration_predicts_fresh_networks(whole: Space, table: LatencyTable, seed: int) -> None:
    model = fitted(whole, table, noise=0.004, seed=seed)
    fresh = whole.sample(300, seed=1000 + seed)
    exact = truth(whole, table, fresh)
    error = np.abs(model.predict(fresh) / exact - 1)
    plain = np.abs(model.plain(fresh) / exact - 1)
    assert error.mean() < 0.006
    assert error.max() < 0.03
    assert plain.mean() > 10 * error.mean()


def test_without_noise_it_is_nearly_exact(whole: Space, table: LatencyTable) -> None:
    model = fitted(whole, table, networks=24)
    fresh = whole.sample(300, seed=99)
    assert np.abs(model.predict(fresh) / truth(whole, table, fresh) - 1).max() < 2e-3
    assert model.fit.networks == 24
    assert model.fit.residual_std < 2e-3


def test_more_noise_is_admitted_in_the_residuals(whole: Space, table: LatencyTable) -> None:
    spread = [fitted(whole, table, noise=noise).fit.residual_std for noise in (0.0, 0.01, 0.05)]
    assert spread == sorted(spread)
    assert 0.003 < spread[1] < 0.03


def test_a_prediction_is_the_explicit_sum(whole: Space, table: LatencyTable) -> None:
    model = fitted(whole, table, noise=0.01)
    codes = whole.sample(50, seed=3)
    explicit = [
        sum(
            model.fit.factors[slot.group] * table.latency_ms(op) + model.fit.overhead_ms for slot, op in whole.ops(arch)
        )
        for arch in whole.decode(codes)
    ]
    np.testing.assert_allclose(model.predict(codes), explicit, rtol=1e-12)
    plain = [sum(table.latency_ms(op) for _, op in whole.ops(arch)) for arch in whole.decode(codes)]
    np.testing.assert_allclose(model.plain(codes), plain, rtol=1e-12)
    assert model.predict(codes[:0]).shape == (0,)


def test_an_explanation_sums_to_the_prediction(whole: Space, table: LatencyTable) -> None:
    model = fitted(whole, table, noise=0.01)
    for arch in (whole.smallest, whole.largest, *whole.decode(whole.sample(10, seed=4))):
        parts = explain(model, arch)
        assert list(parts) == [slot.name for slot, _ in whole.ops(arch)]
        assert sum(parts.values()) == pytest.approx(float(model.predict(whole.encode([arch]))[0]), rel=1e-12)


def test_the_upper_bound_grows_with_confidence(whole: Space, table: LatencyTable) -> None:
    model = fitted(whole, table, noise=0.01)
    margins = [model.margin(confidence) for confidence in (0.6, 0.8, 0.9, 0.95, 0.99, 0.999)]
    assert margins == sorted(set(margins))
    assert margins[0] > 0
    codes = whole.sample(20, seed=5)
    upper = model.predict_upper(codes, 0.95)
    assert (upper > model.predict(codes)).all()
    np.testing.assert_allclose(upper, model.predict(codes) * (1 + model.margin(0.95)))


def test_the_upper_bound_holds_as_often_as_it_says(whole: Space, table: LatencyTable) -> None:
    noise, held = 0.01, []
    for seed in range(30):
        model = fitted(whole, table, noise=noise, seed=seed)
        fresh = whole.sample(100, seed=500 + seed)
        held.append(
            (truth(whole, table, fresh, noise=noise, seed=700 + seed) <= model.predict_upper(fresh, 0.9)).mean()
        )
    assert 0.85 < np.mean(held) < 0.99


def test_a_machine_faster_than_predicted_gives_no_negative_margin(whole: Space, table: LatencyTable) -> None:
    model = fitted(whole, table)
    slow = replace(model, fit=model.fit.model_copy(update={"residual_mean": -0.2, "residual_std": 0.001}))
    assert slow.margin(0.99) == 0
    exact = replace(model, fit=model.fit.model_copy(update={"residual_mean": 0.0, "residual_std": 0.0}))
    assert exact.margin(0.99) == 0


@pytest.mark.parametrize("confidence", [0.4, 1.0, 1.5, -1.0, float("nan")])
def test_a_confidence_is_between_a_half_and_one(whole: Space, table: LatencyTable, confidence: float) -> None:
    with pytest.raises(InvalidValue, match=f"between 0.5 and 1, not at {confidence}"):
        fitted(whole, table).margin(confidence)


@pytest.mark.parametrize("networks", [0, 3])
def test_too_few_networks(whole: Space, table: LatencyTable, networks: int) -> None:
    codes = whole.sample(networks, seed=0)
    with pytest.raises(InvalidValue, match=f"at least 4 calibration networks .*not {networks}"):
        fit_model(table, whole, codes, np.ones(networks))


def test_fitting_needs_every_op(whole: Space, table: LatencyTable) -> None:
    codes = whole.sample(8, seed=0)
    key = whole.distinct_ops[-1].key
    without = replace(table, rows={k: row for k, row in table.rows.items() if k != key})
    with pytest.raises(MissingOp, match="lacks 1 of"):
        fit_model(without, whole, codes, np.ones(8))


def test_a_table_without_factors(whole: Space, table: LatencyTable) -> None:
    with pytest.raises(
        TableError, match=f"no context factors for it. Fit them with: hwnas profile --space {whole.name} --target"
    ):
        load_model(table, whole)


def test_the_written_manifest_gives_the_same_predictions(
    whole: Space, table: LatencyTable, this: Target, tmp_path: Path
) -> None:
    model = fitted(whole, table, noise=0.01)
    write_table(table.with_fit(model.fit), tmp_path / "t.csv")
    again = load_model(read_table(this, tmp_path / "t.csv"), whole)
    codes = whole.sample(100, seed=6)
    assert (again.predict(codes) == model.predict(codes)).all()
    assert again.margin() == model.margin()
    assert again.target == this.name


def test_a_part_of_the_space_is_predicted_alike(whole: Space, table: LatencyTable) -> None:
    model = fitted(whole, table, noise=0.01)
    part = whole.fix(resolution=28, depth_2=(2, 3), kernel_1_1=(5, 7))
    narrow = load_model(table.with_fit(model.fit), part)
    codes = part.sample(50, seed=7)
    np.testing.assert_allclose(narrow.predict(codes), model.predict(whole.encode(part.decode(codes))), rtol=1e-12)
