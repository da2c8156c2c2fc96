from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import InvalidValue, MissingOp, TableError
from hwnas.latency import LatencyModel, LatencyTable, load_model, read_table, write_table
from hwnas.latency.context import cost_ms
from hwnas.latency.manifest import Fit, Validation
from hwnas.latency.model import slot_latencies
from hwnas.spaces import Domain, SlotSum, Space, make_space
from hwnas.targets import Target

Make = Callable[..., LatencyTable]

TERMS = {
    "scale": 1.04,
    "ms per op": -0.0003,
    "ms per million weights": 0.05,
    "ms per million values read": 0.03,
    "stage stage1": 0.12,
    "stage stage2": -0.07,
}
SCORES = [i / 1000 - 0.02 for i in range(40)]


def a_fit(space: Space, **more: object) -> Fit:
    facts: dict[str, object] = {
        "domain": Domain.of(space),
        "seed": 3,
        "calibration_ms": [0.1 + i / 3 for i in range(16)],
        "terms": TERMS,
        "held_out_mape": 0.0123,
        "scores": SCORES,
        "measurement": {"passes": 10},
    }
    return Fit.model_validate(facts | more)


@pytest.fixture(scope="module")
def whole() -> Space:
    return make_space("mobilenetv3-tiny")


@pytest.fixture(scope="module")
def table(whole: Space, this: Target, make_table: Make) -> LatencyTable:
    return make_table(whole, this).with_fit(a_fit(whole))


@pytest.fixture(scope="module")
def model(whole: Space, table: LatencyTable) -> LatencyModel:
    return load_model(table, whole)


# -- predictions -----------------------------------------------------------------------------------------


def test_a_prediction_is_the_explicit_sum(whole: Space, table: LatencyTable, model: LatencyModel) -> None:
    codes = whole.sample(50, seed=3)
    explicit = [
        sum(cost_ms(TERMS, slot.group, op, table.latency_ms(op)) for slot, op in whole.ops(arch))
        for arch in whole.decode(codes)
    ]
    np.testing.assert_allclose(model.predict(codes), explicit, rtol=1e-12)
    plain = [sum(table.latency_ms(op) for _, op in whole.ops(arch)) for arch in whole.decode(codes)]
    np.testing.assert_allclose(model.plain(codes), plain, rtol=1e-12)
    assert model.predict(codes[:0]).shape == (0,)
    assert (model.target, model.source) == (table.target.name, "measured")


def test_an_explanation_sums_to_the_prediction(whole: Space, model: LatencyModel) -> None:
    for arch in (whole.smallest, whole.largest, *whole.decode(whole.sample(10, seed=4))):
        parts = slot_latencies(model, arch)
        assert list(parts) == [slot.name for slot, _ in whole.ops(arch)]
        assert sum(parts.values()) == pytest.approx(float(model.predict(whole.encode([arch]))[0]), rel=1e-12)


def test_a_part_of_the_space_is_predicted_alike(whole: Space, table: LatencyTable, model: LatencyModel) -> None:
    part = whole.fix(resolution=28, depth_2=(2, 3), kernel_1_1=(5, 7))
    narrow = load_model(table, part)
    codes = part.sample(50, seed=7)
    np.testing.assert_allclose(narrow.predict(codes), model.predict(whole.encode(part.decode(codes))), rtol=1e-12)


# -- loading ---------------------------------------------------------------------------------------------


def test_a_measured_table_without_a_fit(whole: Space, this: Target, make_table: Make) -> None:
    with pytest.raises(
        TableError, match=f"no context terms for it. Fit them with: hwnas profile --space {whole.name} --target"
    ):
        load_model(make_table(whole, this), whole)


def test_a_fit_of_another_part_is_no_fit(whole: Space, this: Target, make_table: Make) -> None:
    table = make_table(whole, this).with_fit(a_fit(whole.fix(resolution=24)))
    assert load_model(table, whole.fix(resolution=24, depth_1=2)).fit is not None
    with pytest.raises(TableError, match="no context terms"):
        load_model(table, whole.fix(resolution=28))


def test_a_table_that_lacks_an_op(whole: Space, table: LatencyTable) -> None:
    key = whole.distinct_ops[-1].key
    without = replace(table, rows={k: row for k, row in table.rows.items() if k != key})
    with pytest.raises(MissingOp, match="lacks 1 of"):
        load_model(without, whole)


def test_an_imported_table_is_its_plain_sum_without_a_bound(whole: Space, this: Target, make_table: Make) -> None:
    imported = load_model(make_table(whole, this, origin="imported"), whole)
    codes = whole.sample(20, seed=1)
    assert imported.fit is None
    assert imported.source == "imported"
    assert (imported.predict(codes) == imported.plain(codes)).all()
    with pytest.raises(TableError, match=r"were imported and never calibrated .* Search with --no-margin"):
        imported.margin(0.9)
    with pytest.raises(TableError, match="never calibrated"):
        imported.predict_upper(codes)


def test_the_written_manifest_gives_the_same_numbers(
    whole: Space, this: Target, make_table: Make, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(60).tolist()
    validation = Validation.model_validate(
        {
            "networks": 40,
            "seed": 2,
            "mape": 0.1 + 0.2,
            "noise_floor": 1e-17,
            "within_5pct": 1.0,
            "within_10pct": 1.0,
            "kendall_tau": -1 / 3,
            "kendall_tau_repeat": 1.0,
            "speed": 0.97,
            "confidence": 0.95,
            "below_upper": 0.975,
            "upper_margin": -0.0123,
            "baselines": {"plain sum": {"mape": 1 / 3, "kendall_tau": 0.1}, "MACs": {"mape": 7.0, "kendall_tau": 0}},
            "spread": 0.01,
            "date": "2026-02-03",
        }
    )
    fit = a_fit(
        whole,
        terms={"scale": 1 / 3, "ms per op": -1e-17, 'a "name" = 1': 0.1 + 0.2, "stage größer": 1e300},
        scores=sorted(numbers),
        calibration_ms=[abs(x) for x in numbers],
        held_out_mape=0.1 + 0.2,
        measurement={"passes": 10, "seed": 0, "tolerance": 0.02, "reference": "0"},
        validation=validation,
    )
    table = make_table(whole, this).with_fit(fit)
    write_table(table, tmp_path / "t.csv")
    read = read_table(this, tmp_path / "t.csv")
    [again] = read.manifest.fits
    assert again == fit
    bound = validation.model_copy(update={"below_upper": None, "upper_margin": None})
    write_table(read.with_validation(whole, bound), tmp_path / "t.csv")
    assert read_table(this, tmp_path / "t.csv").manifest.fits[0].validation == bound


def test_a_model_read_again_predicts_the_same(
    whole: Space, table: LatencyTable, model: LatencyModel, this: Target, tmp_path: Path
) -> None:
    write_table(table, tmp_path / "t.csv")
    again = load_model(read_table(this, tmp_path / "t.csv"), whole)
    codes = whole.sample(100, seed=6)
    assert (again.predict(codes) == model.predict(codes)).all()
    assert (again.predict_upper(codes) == model.predict_upper(codes)).all()
    assert again.target == this.name


# -- upper bounds ----------------------------------------------------------------------------------------


def bounded(scores: Sequence[float]) -> LatencyModel:
    """A model whose predictions nobody needs."""
    space = make_space("mobilenetv3-tiny").fix(resolution=24, depth_1=1, depth_2=1, depth_3=1)
    zero = SlotSum(constant=1.0, axes=(), arrays=())
    fit = a_fit(space, scores=sorted(scores))
    return LatencyModel(space=space, target="board/made-up", total=zero, plain=zero, fit=fit)


def naive_margin(scores: Sequence[float], confidence: Fraction) -> float | None:
    """The least score that at least so many of n + 1 are not above, with the fresh one counted as the largest."""
    for score in sorted(scores):
        if Fraction(sum(s <= score for s in scores), len(scores) + 1) >= confidence:
            return score
    return None


@given(
    scores=st.lists(st.floats(-0.5, 0.5), min_size=0, max_size=120),
    percent=st.integers(500, 999),
)
def test_the_margin_is_the_conformal_rank(scores: list[float], percent: int) -> None:
    """Confidences that people write, such as 0.95, are meant exactly, whatever floating point makes of them."""
    model, wanted = bounded(scores), naive_margin(scores, Fraction(percent, 1000))
    if wanted is None:
        with pytest.raises(InvalidValue, match="bound networks"):
            model.margin(percent / 1000)
    else:
        assert model.margin(percent / 1000) == wanted


@given(n=st.integers(1, 400), percent=st.integers(500, 999))
def test_the_message_names_how_many_networks_it_takes(n: int, percent: int) -> None:
    confidence = percent / 1000
    try:
        bounded([0.0] * n).margin(confidence)
    except InvalidValue as error:
        words = str(error).split()
        needed = int(words[words.index("requires") + 1])
        exact = math.ceil(Fraction(percent, 1000) / (1 - Fraction(percent, 1000)))
        assert needed == exact > n
        assert str(error).endswith(f"--bound-networks {needed}")
        bounded([0.0] * needed).margin(confidence)
        with pytest.raises(InvalidValue):
            bounded([0.0] * (needed - 1)).margin(confidence)


@given(n=st.integers(1, 1200))
def test_what_is_said_to_be_possible_is(n: int) -> None:
    with pytest.raises(InvalidValue) as caught:
        bounded([0.0] * n).margin(1 - 1e-7)
    said = str(caught.value)
    highest = float(said.partition("at most ")[2].partition(". ")[0])
    bounded([0.0] * n).margin(highest)
    assert highest + 0.001 > n / (n + 1) - 1e-9
    assert f"has {n}, which" in said


@pytest.mark.parametrize(
    ("n", "confidence", "rank"),
    [
        (19, 0.95, 19),  # 20 * 0.95 is 19 exactly
        (39, 0.95, 38),
        (40, 0.95, 39),
        (9, 0.9, 9),
        (99, 0.99, 99),
        (199, 0.99, 198),
        (999, 0.999, 999),
        (9, 0.7, 7),
        (1, 0.5, 1),
        (2, 0.5, 2),
        (3, 0.5, 2),
    ],
)
def test_ranks_at_the_edges_of_floating_point(n: int, confidence: float, rank: int) -> None:
    assert bounded([i / 1000 for i in range(1, n + 1)]).margin(confidence) == rank / 1000


@pytest.mark.parametrize(
    ("n", "confidence", "needed", "most"),
    [(18, 0.95, 19, 0.947), (40, 0.99, 99, 0.975), (98, 0.99, 99, 0.989), (0, 0.5, 1, 0), (500, 0.9999, 9999, 0.998)],
)
def test_too_high_a_confidence(n: int, confidence: float, needed: int, most: float) -> None:
    with pytest.raises(
        InvalidValue,
        match=rf"a confidence of {confidence:g} requires {needed} bound networks, but the table of board/made-up "
        rf"has {n}, which allow at most {most:g}. .*--bound-networks {needed}$",
    ):
        bounded([0.0] * n).margin(confidence)


@pytest.mark.parametrize("confidence", [0.4, 0.0, 1.0, 1.5, -1.0, float("nan"), float("inf")])
def test_a_confidence_is_between_a_half_and_one(model: LatencyModel, confidence: float) -> None:
    with pytest.raises(InvalidValue, match=f"between 0.5 and 1, not {confidence}"):
        model.margin(confidence)


def test_the_upper_bound_is_the_prediction_and_its_margin(whole: Space, model: LatencyModel) -> None:
    margins = [model.margin(confidence) for confidence in (0.5, 0.6, 0.8, 0.9, 0.95, 0.97)]
    assert margins == sorted(margins)
    assert model.margin() == model.margin(0.95)
    codes = whole.sample(20, seed=5)
    for confidence in (0.5, 0.8, 0.95):
        np.testing.assert_array_equal(
            model.predict_upper(codes, confidence), model.predict(codes) * (1 + model.margin(confidence))
        )
    np.testing.assert_array_equal(model.predict_upper(codes), model.predict_upper(codes, 0.95))


def test_a_machine_faster_than_predicted_has_a_bound_below_the_prediction() -> None:
    model = bounded([-0.05 + i / 10_000 for i in range(40)])
    assert -0.05 < model.margin(0.95) < -0.045
    codes = model.space.sample(5, seed=0)
    assert (model.predict_upper(codes) < model.predict(codes)).all()


@pytest.mark.parametrize(("n", "confidence"), [(19, 0.95), (40, 0.95), (40, 0.9), (99, 0.8), (10, 0.5)])
@pytest.mark.parametrize("shape", ["normal", "skewed", "two peaks"])
def test_the_upper_bound_holds_as_often_as_it_says(n: int, confidence: float, shape: str) -> None:
    """Over many profiles, a fresh network lies below with at least the confidence, and at most 1 / (n + 1) more."""
    rng = np.random.default_rng(n)
    draw = {
        "normal": lambda size: 0.02 * rng.standard_normal(size),
        "skewed": lambda size: 0.01 * rng.exponential(size=size) - 0.02,
        "two peaks": lambda size: rng.choice([-0.03, 0.04], size) + 0.001 * rng.standard_normal(size),
    }[shape]
    profiles = 2000
    held = [np.mean(draw(200) <= bounded(draw(n).tolist()).margin(confidence)) for _ in range(profiles)]
    # Of one profile the share is Beta(rank, n + 1 - rank); its mean over 2000 is this sure to four deviations.
    slack = 4 * math.sqrt(confidence * (1 - confidence) / (n + 2) / profiles) + 0.001
    assert confidence - slack <= np.mean(held) <= confidence + 1 / (n + 1) + slack
