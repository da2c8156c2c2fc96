"""The terms of a context, on latencies that were made up with known ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from hwnas.latency import LatencyTable
from hwnas.latency.context import _design, cost_ms, features, fit_context
from hwnas.spaces import Codes, Op, Space, make_space
from hwnas.spaces.draws import distinct
from hwnas.targets import Target

Floats = np.ndarray
Terms = Mapping[str, float]

# Ops alone pay for a call (-), and find their weights and images in the caches (+).
PLAIN = {
    "scale": 1.04,
    "ms per op": -0.0012,
    "ms per million weights": 0.05,
    "ms per million values read": 0.03,
    "ms per million values written": -0.02,
}
STAGES = {"stage stem": 0.1, "stage stage1": -0.12, "stage stage2": 0.2, "stage stage3": -0.05, "stage head": 0.0}


@pytest.fixture(scope="module")
def whole() -> Space:
    return make_space("mobilenetv3-tiny")


@pytest.fixture(scope="module")
def table_ms(whole: Space, this: Target, make_table: Callable[..., LatencyTable]) -> dict[Op, float]:
    table = make_table(whole, this)
    return {op: table.latency_ms(op) for op in whole.distinct_ops}


def truth(space: Space, table_ms: Mapping[Op, float], terms: Terms, codes: Codes) -> Floats:
    """Latencies of a machine that is as the terms say, written out network by network."""
    latencies = []
    for arch in space.decode(codes):
        total = 0.0
        for slot, op in space.ops(arch):
            factor = terms["scale"] + terms.get(f"stage {slot.group}", 0.0)
            total += factor * table_ms[op] + terms.get("ms per op", 0.0)
            total += terms.get("ms per million weights", 0.0) * op.params / 1e6
            total += terms.get("ms per million values read", 0.0) * math.prod(op.input) / 1e6
            total += terms.get("ms per million values written", 0.0) * math.prod(op.output) / 1e6
        latencies.append(total)
    return np.array(latencies)


def predicted(space: Space, table_ms: Mapping[Op, float], terms: Terms, codes: Codes) -> Floats:
    return np.asarray(space.grouped_sum(lambda group, op: cost_ms(terms, group, op, table_ms[op]))(codes))


def noisy(ms: Floats, noise: float, seed: int) -> Floats:
    return ms * (1 + noise * np.random.default_rng(seed).standard_normal(len(ms)))


def has_stages(terms: Terms) -> bool:
    return any(name.startswith("stage ") for name in terms)


@pytest.mark.parametrize("known", [PLAIN, PLAIN | STAGES], ids=["no groups", "stages"])
def test_a_machine_of_known_terms_is_predicted(whole: Space, table_ms: dict[Op, float], known: Terms) -> None:
    codes, fresh = distinct(whole, 60, seed=1), distinct(whole, 300, seed=2)
    fitted = fit_context(whole, table_ms, codes, truth(whole, table_ms, known, codes))
    error = predicted(whole, table_ms, fitted.terms, fresh) / truth(whole, table_ms, known, fresh) - 1
    assert np.abs(error).max() < 0.01
    assert np.abs(error).mean() < 0.002
    assert np.abs(fitted.held_out).mean() < 0.002
    assert fitted.held_out.shape == (60,)


def test_a_common_scale_is_recovered(whole: Space, table_ms: dict[Op, float]) -> None:
    codes = distinct(whole, 12, seed=3)
    fitted = fit_context(whole, table_ms, codes, truth(whole, table_ms, {"scale": 1.13}, codes))
    assert fitted.terms["scale"] == pytest.approx(1.13, rel=0.01)
    for op in whole.distinct_ops[:40]:
        assert cost_ms(fitted.terms, "stage1", op, table_ms[op]) == pytest.approx(1.13 * table_ms[op], rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_few_noisy_networks_are_enough(whole: Space, table_ms: dict[Op, float], seed: int) -> None:
    codes, fresh = distinct(whole, 16, seed=10 + seed), distinct(whole, 300, seed=99)
    measured = noisy(truth(whole, table_ms, PLAIN | STAGES, codes), 0.004, seed)
    fitted = fit_context(whole, table_ms, codes, measured)
    exact = truth(whole, table_ms, PLAIN | STAGES, fresh)
    error = np.abs(predicted(whole, table_ms, fitted.terms, fresh) / exact - 1).mean()
    plain = np.abs(predicted(whole, table_ms, {"scale": 1.0}, fresh) / exact - 1).mean()
    assert error < 0.012
    assert error < plain / 3
    # The error that it admits is of the size of the one that it makes.
    assert error / 3 < np.abs(fitted.held_out).mean() < 4 * error + 0.004


def test_cross_validation_chooses_whether_stages_deviate(whole: Space, table_ms: dict[Op, float]) -> None:
    """Of ten draws each: none where the truth has none, stages where they differ strongly."""
    chosen: dict[str, list[bool]] = {"none": [], "stages": []}
    for seed in range(10):
        codes = distinct(whole, 24, seed=seed)
        for name, known in (("none", PLAIN), ("stages", PLAIN | {n: 3 * v for n, v in STAGES.items()})):
            measured = noisy(truth(whole, table_ms, known, codes), 0.003, seed)
            chosen[name].append(has_stages(fit_context(whole, table_ms, codes, measured).terms))
    assert all(chosen["stages"])
    assert chosen["none"].count(False) >= 8


@pytest.mark.parametrize("seed", range(3))
def test_groups_that_are_not_needed_do_no_harm(whole: Space, table_ms: dict[Op, float], seed: int) -> None:
    codes, fresh = distinct(whole, 16, seed=seed), distinct(whole, 300, seed=98)
    measured = noisy(truth(whole, table_ms, PLAIN, codes), 0.003, seed)
    fitted = fit_context(whole, table_ms, codes, measured)
    exact = truth(whole, table_ms, PLAIN, fresh)
    assert np.abs(predicted(whole, table_ms, fitted.terms, fresh) / exact - 1).mean() < 0.006


def test_the_held_out_error_is_of_fits_without_the_network(whole: Space, table_ms: dict[Op, float]) -> None:
    """An outlier that no other network explains is not fitted away: its own error stays what it is."""
    codes = distinct(whole, 16, seed=6)
    measured = truth(whole, table_ms, PLAIN, codes)
    measured[4] *= 1.25
    fitted = fit_context(whole, table_ms, codes, measured)
    assert fitted.held_out[4] == pytest.approx(1 / 1.25 - 1, abs=0.05)
    assert np.abs(np.delete(fitted.held_out, 4)).max() < 0.1


def test_a_cost_is_what_the_terms_say(whole: Space, table_ms: dict[Op, float]) -> None:
    op = next(op for op in whole.distinct_ops if op.kind == "mbconv")
    values = 0.03 * math.prod(op.input) - 0.02 * math.prod(op.output)
    by_hand = 1.04 * table_ms[op] - 0.0012 + 0.05 * op.params / 1e6 + values / 1e6
    assert cost_ms(PLAIN, "head", op, table_ms[op]) == pytest.approx(by_hand)
    assert cost_ms(PLAIN | STAGES, "stage2", op, table_ms[op]) == pytest.approx(by_hand + 0.2 * table_ms[op])


def test_features_are_linear_in_slots(whole: Space, table_ms: dict[Op, float]) -> None:
    """A network's row is the sum over its slots, and the cost of any terms is linear in it."""
    codes = distinct(whole, 20, seed=7)
    names, x = _design(whole, table_ms, codes)
    assert len(set(names)) == len(names)
    assert names[0] == "scale"
    assert has_stages(dict.fromkeys(names, 0.0))
    for row, arch in zip(x, whole.decode(codes), strict=True):
        for name, value in zip(names, row, strict=True):
            parts = [features(s.group, op, table_ms[op]).get(name, 0.0) for s, op in whole.ops(arch)]
            assert value == pytest.approx(sum(parts), rel=1e-12)
    # The same through the space's own sum over slots, which is what search and loss work on.
    rng = np.random.default_rng(0)
    terms = {name: float(rng.uniform(0.1, 1.0)) for name in names}
    weights = np.array([terms[name] for name in names])
    np.testing.assert_allclose(predicted(whole, table_ms, terms, codes), x @ weights, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_networks_does_not_matter(whole: Space, table_ms: dict[Op, float], seed: int) -> None:
    codes = distinct(whole, 16, seed=seed)
    measured = noisy(truth(whole, table_ms, PLAIN | STAGES, codes), 0.005, seed)
    order = np.random.default_rng(seed).permutation(16)
    first = fit_context(whole, table_ms, codes, measured)
    second = fit_context(whole, table_ms, codes[order], measured[order])
    assert set(first.terms) == set(second.terms)
    for name, value in first.terms.items():
        assert second.terms[name] == pytest.approx(value, rel=1e-6, abs=1e-9)
    np.testing.assert_allclose(second.held_out, first.held_out[order], atol=1e-9)


def test_the_unit_of_time_does_not_matter(whole: Space, table_ms: dict[Op, float]) -> None:
    """A machine a thousand times as slow has the same relative errors; only the terms a unit stands in change."""
    codes = distinct(whole, 16, seed=8)
    measured = noisy(truth(whole, table_ms, PLAIN | STAGES, codes), 0.005, 0)
    slow_table = {op: 1000 * ms for op, ms in table_ms.items()}
    quick, slow = fit_context(whole, table_ms, codes, measured), fit_context(whole, slow_table, codes, 1000 * measured)
    np.testing.assert_allclose(slow.held_out, quick.held_out, atol=1e-9)
    for name, value in quick.terms.items():
        unit = 1000 if name.startswith("ms ") else 1
        assert slow.terms[name] == pytest.approx(unit * value, rel=1e-6, abs=1e-9)


def test_four_networks_are_fitted(whole: Space, table_ms: dict[Op, float]) -> None:
    """The least that a profile accepts: fewer networks than terms, and still a finite, sensible answer."""
    codes, fresh = distinct(whole, 4, seed=9), distinct(whole, 100, seed=96)
    fitted = fit_context(whole, table_ms, codes, noisy(truth(whole, table_ms, PLAIN, codes), 0.003, 1))
    assert all(math.isfinite(value) for value in fitted.terms.values())
    exact = truth(whole, table_ms, PLAIN, fresh)
    assert np.abs(predicted(whole, table_ms, fitted.terms, fresh) / exact - 1).mean() < 0.1


@pytest.mark.parametrize("seed", range(8))
def test_no_network_is_predicted_to_take_no_time(whole: Space, table_ms: dict[Op, float], seed: int) -> None:
    """Latencies as of a machine too busy for figures: of four networks the best terms predict negative latencies."""
    rng = np.random.default_rng(seed)
    codes = distinct(whole, 5, seed=seed)
    measured = truth(whole, table_ms, PLAIN, codes) * rng.lognormal(sigma=1.0, size=5)
    fitted = fit_context(whole, table_ms, codes, measured)
    assert predicted(whole, table_ms, fitted.terms, whole.sample(2000, seed=1)).min() > 0
