"""Validation on one real measurement of a small space. No figure of this machine is judged here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, TableError, TooNoisy
from hwnas.latency import LatencyModel, LatencyTable, load_model, read_table, write_table
from hwnas.latency.manifest import Fit
from hwnas.machines import SimulatedMachine
from hwnas.profiling import ValidationReport, validate
from hwnas.profiling.baselines import baselines, mape, tau
from hwnas.profiling.profiler import calibration_codes
from hwnas.profiling.validation import _fresh, as_it_was
from hwnas.spaces import Domain, Space, make_space
from hwnas.targets import Target
from hwnas.timing import Measurement, Protocol

# The package exports a function of the module's name.
MODULE = importlib.import_module("hwnas.profiling.validation")
SHORT = Protocol(visit_ms=0.5, session_passes=2, max_sessions=2, max_disagreement=1e3)


@pytest.fixture(scope="module")
def model(space: Space, profiled: LatencyTable) -> LatencyModel:
    return load_model(profiled, space)


@pytest.fixture(scope="module")
def report(model: LatencyModel, this: Target) -> ValidationReport:
    return validate(model, this, networks=5, seed=3, protocol=SHORT)


def wider(model: LatencyModel, scores: int) -> LatencyModel:
    """The model with the errors of so many bound networks."""
    assert model.fit is not None
    fit = model.fit.model_copy(update={"scores": [i / 1000 for i in range(scores)]})
    return LatencyModel(space=model.space, target=model.target, total=model.total, plain=model.plain, fit=fit)


class MadeUp(SimulatedMachine):
    """Every program takes a made-up time, by its name and the number of the measurement.

    Attributes:
        timed: names of the programs of each measurement.
    """

    def __init__(self, times: Callable[[str, int], float]) -> None:
        super().__init__(lambda op: 1.0)
        self.times = times
        self.timed: list[list[str]] = []

    def time(self, programs: Mapping[str, object], *_: object, **__: object) -> Measurement:  # type: ignore[override]
        samples = {name: [[self.times(name, len(self.timed))]] * 4 for name in programs}
        self.timed.append(list(programs))
        return Measurement(samples_ms=samples, reference=next(iter(samples)), protocol=SHORT)


def test_the_figures_belong_together(report: ValidationReport, model: LatencyModel) -> None:
    summary = report.summary
    assert (summary.networks, summary.seed, summary.confidence) == (5, 3, 0.95)
    assert all(np.isfinite(value) for value in summary.model_dump().values() if isinstance(value, float))
    errors = np.abs(report.predicted_ms / report.measured_ms - 1)
    assert summary.mape == errors.mean()
    assert summary.within_5pct == (errors <= 0.05).mean() <= summary.within_10pct == (errors <= 0.1).mean()
    assert report.measured_ms.shape == (2, 5)
    assert (report.measured_ms > 0).all()
    first, second = report.measured_ms
    assert (first != second).any()
    np.testing.assert_array_equal(report.predicted_ms, model.predict(report.codes))
    assert summary.kendall_tau == np.mean([tau(report.predicted_ms, row[None]) for row in report.measured_ms])
    assert summary.kendall_tau_repeat == tau(first, second[None])
    assert summary.speed > 0


def test_networks_are_fresh(report: ValidationReport, space: Space) -> None:
    fresh = {tuple(row) for row in report.codes}
    assert len(fresh) == 5
    assert not fresh & {tuple(row) for row in calibration_codes(space, 8, 4)}


def test_four_bound_networks_carry_no_bound_at_95_percent(report: ValidationReport) -> None:
    assert report.summary.below_upper is None
    assert report.summary.upper_margin is None
    assert np.isnan(report.upper_ms).all()


def test_the_worst_are_explained(report: ValidationReport, model: LatencyModel, space: Space) -> None:
    worst = report.worst(model)
    errors = np.abs((report.predicted_ms / report.measured_ms - 1).mean(axis=0))
    assert [abs(error) for _, error, _ in worst] == sorted(errors, reverse=True)
    assert len(report.worst(model, 2)) == 2
    for arch, error, parts in worst:
        [row] = np.flatnonzero((report.codes == space.encode([arch])).all(axis=1))
        assert error == pytest.approx((report.predicted_ms[row] / report.measured_ms[:, row] - 1).mean(), rel=1e-12)
        assert list(parts) == [slot.name for slot, _ in space.ops(arch)]
        assert sum(parts.values()) == pytest.approx(report.predicted_ms[row], rel=1e-12)


def test_it_is_kept_in_the_manifest(
    report: ValidationReport, profiled: LatencyTable, space: Space, this: Target, tmp_path: Path
) -> None:
    write_table(profiled.with_validation(space, report.summary), tmp_path / "t.csv")
    read = read_table(this, tmp_path / "t.csv")
    assert read.manifest.fits[0].validation == report.summary
    assert read.rows.keys() == profiled.rows.keys()
    # A later one takes its place.
    later = report.summary.model_copy(update={"date": "2030-01-01", "below_upper": 0.9, "upper_margin": 0.1})
    write_table(read.with_validation(space, later), tmp_path / "t.csv")
    [fit] = read_table(this, tmp_path / "t.csv").manifest.fits
    assert fit.validation == later
    assert fit.model_copy(update={"validation": None}) == profiled.manifest.fits[0]


# -- on made-up times ------------------------------------------------------------------------------------


def test_the_machines_speed_is_taken_out(
    model: LatencyModel, this: Target, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is 1.25 times as slow, then twice as fast, as at the profile gives the figures of the profile."""
    assert model.fit is not None
    calibration = model.fit.calibration_ms
    # The largest share of the times is taken from what the networks' names say: those of the profile are named so.
    slowdown = [1.25, 0.5]

    def times(name: str, measurement: int) -> float:
        own = (
            calibration[int(name.removeprefix("calibration "))]
            if name.startswith("calibration ")
            else 1 + int(name) / 10
        )
        return own * slowdown[measurement]

    machine = MadeUp(times)
    report = validate(model, this, networks=5, seed=1, machine=machine)
    assert machine.timed[0] == machine.timed[1] == [*map(str, range(5)), *(f"calibration {i}" for i in range(8))]
    np.testing.assert_allclose(report.measured_ms, [[1.0, 1.1, 1.2, 1.3, 1.4]] * 2, rtol=1e-9)
    assert report.summary.speed == pytest.approx(1 / 1.25)
    assert report.summary.noise_floor == pytest.approx(0, abs=1e-12)
    assert report.summary.kendall_tau_repeat == pytest.approx(1)


def test_a_machine_that_tilts_is_set_upright() -> None:
    """Slower by a tenth for small networks and by a fifth for large ones, as when neighbours take the shared cache."""
    rng = np.random.default_rng(0)
    then = np.exp(rng.uniform(np.log(2.0), np.log(4.0), 56))
    now = 1.1 * then * (then / 2.0) ** 0.126  # 1.1 at 2 ms, 1.2 at 4 ms
    found = as_it_was(now[16:], now[:16], then[:16])
    np.testing.assert_allclose(found, then[16:], rtol=0.01)
    assert np.abs(found / then[16:] - 1).mean() < np.abs(now[16:] / then[16:] * (then / now)[:16].mean() - 1).mean() / 4


def test_networks_that_are_all_alike_tell_no_tilt() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        then, now = np.array([[2.0], [2.2]]) * (1 + 0.01 * rng.standard_normal((2, 16)))
        found = as_it_was(np.array([1.1, 2.2, 4.4]), now, then)
        np.testing.assert_allclose(found, [1.0, 2.0, 4.0], rtol=0.08)
    np.testing.assert_allclose(as_it_was(now, now, now), now)  # nothing has changed, and nothing is divided by 0


def test_the_noise_floor_is_between_the_two_measurements(
    model: LatencyModel, this: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.fit is not None
    calibration = model.fit.calibration_ms

    def times(name: str, measurement: int) -> float:
        if name.startswith("calibration "):
            return calibration[int(name.removeprefix("calibration "))]
        return 1 + int(name) / 10 + (0.02 if measurement else 0.0) * (1 + int(name) / 10)

    report = validate(model, this, networks=5, machine=MadeUp(times))
    assert report.summary.noise_floor == pytest.approx(0.02 / 1.01)
    assert report.summary.speed == pytest.approx(1)


def test_the_calibration_networks_are_timed_again(
    model: LatencyModel, this: Target, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[np.ndarray] = []
    real = MODULE.assembled

    def assembled(where: Space, target: Target, codes: np.ndarray, programs: object, folder: Path) -> object:
        drawn.append(codes)
        return real(where, target, codes, programs, folder)

    monkeypatch.setattr(MODULE, "assembled", assembled)
    validate(model, this, networks=4, machine=MadeUp(lambda name, _: 1.0))
    fresh, calibration = drawn
    assert len(fresh) == 4
    np.testing.assert_array_equal(calibration, calibration_codes(space, 8, 4)[:8])  # the other four are bound networks


def test_the_upper_bound_is_checked_where_there_is_one(
    model: LatencyModel, this: Target, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.fit is not None
    calibration = model.fit.calibration_ms
    with_bound = wider(model, 19)  # 0.018 at 95%
    # Fresh networks are drawn among those that such a profile would leave; here they are free.
    part = space.sample(30, seed=0)
    fresh = np.unique(part, axis=0)[:4]
    monkeypatch.setattr(Fit, "networks", lambda _: calibration_codes(space, 8))
    monkeypatch.setattr(MODULE, "_fresh", lambda *_: fresh)
    predicted = with_bound.predict(fresh)

    def times(name: str, _: int) -> float:
        if name.startswith("calibration "):
            return calibration[int(name.removeprefix("calibration "))]
        return float(predicted[int(name)]) * (1.01 if int(name) < 3 else 1.03)

    report = validate(with_bound, this, networks=4, machine=MadeUp(times))
    assert report.summary.below_upper == 0.75
    assert report.summary.upper_margin == pytest.approx(0.018)
    np.testing.assert_allclose(report.upper_ms, predicted * 1.018)


def test_too_noisy_a_machine_gives_no_figures(model: LatencyModel, this: Target) -> None:
    strict = replace(SHORT, max_disagreement=0.06)
    machine = SimulatedMachine(lambda op: 1.0, noise=0.5, seed=1)
    with pytest.raises(TooNoisy, match="Nothing was written"):
        validate(model, this, networks=4, machine=machine, protocol=strict)


# -- other predictors ------------------------------------------------------------------------------------


def test_baselines_stand_beside_it(report: ValidationReport, model: LatencyModel) -> None:
    found = report.summary.baselines
    assert list(found) == ["plain sum", "MACs", "parameters", "gradient boosting"]
    for baseline in found.values():
        assert np.isfinite(baseline.mape)
        assert baseline.mape >= 0
        assert -1 <= baseline.kendall_tau <= 1
    assert found["plain sum"].mape == mape(model.plain(report.codes), report.measured_ms)


def test_baselines_predict_what_they_can(model: LatencyModel, space: Space) -> None:
    """Where latency is a straight line in MACs, that baseline is exact; likewise parameters."""
    codes = calibration_codes(space, 12)
    for name, known in (("MACs", space.macs), ("parameters", space.params)):
        ms = 0.1 + 3e-7 * known(codes)
        found = baselines(model, space, codes[:8], ms[:8], codes[8:])
        np.testing.assert_allclose(found[name], ms[8:], rtol=1e-6)
        assert {len(values) for values in found.values()} == {4}
    same = baselines(model, space, codes[:8], ms[:8], codes[:8])
    np.testing.assert_allclose(same["gradient boosting"], ms[:8], rtol=0.05)


def test_tau_of_equals_ranks_nothing() -> None:
    up = np.arange(4.0)
    assert tau(np.ones(4), up[None]) == 0
    assert tau(up, up[None] ** 3) == 1
    assert tau(up, np.stack([up, -up])) == 0  # the mean of 1 and -1
    assert mape(np.array([1.1, 0.9]), np.ones(2)) == pytest.approx(0.1)


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_the_profile_are_known_in_a_part_of_its_domain(model: LatencyModel, seed: int) -> None:
    """The same network has other codes in a restricted space, and other values where a variable does not matter."""
    whole = make_space("mobilenetv3-tiny").fix(resolution=24, depth_2=1, depth_3=1, kernel_2_1=3, kernel_3_1=3)
    part = whole.fix(depth_1=(1, 2), kernel_1_1=(5, 7), kernel_1_2=(5, 7), kernel_1_3=7, expansion_1_1=(3, 4))

    def blocks(space: Space, codes: np.ndarray) -> set[tuple[str, ...]]:
        return {tuple(op.key for _, op in space.ops(arch)) for arch in space.decode(codes)}

    assert model.fit is not None
    fit = model.fit.model_copy(update={"domain": Domain.of(whole)})
    zero = part.slot_sum(lambda op: 0.0)
    narrow = LatencyModel(space=part, target=model.target, total=zero, plain=zero, fit=fit)
    profiled = calibration_codes(whole, 300, 100)
    known, archs = blocks(whole, profiled), whole.decode(profiled)
    all_of_part = blocks(part, np.unique(part.sample(20_000, seed=0), axis=0))
    assert len(all_of_part) == part.size
    assert known & all_of_part
    left = all_of_part - known
    assert blocks(part, _fresh(narrow, archs, len(left), seed)) == left
    with pytest.raises(InvalidValue, match=f"{part.size} networks, of which {len(all_of_part & known)} were used"):
        _fresh(narrow, archs, len(left) + 1, seed)


def test_bounds_of_a_validation(model: LatencyModel, this: Target) -> None:
    with pytest.raises(InvalidValue, match="at least 2 networks, not 1"):
        validate(model, this, networks=1)
    with pytest.raises(
        InvalidValue, match=r"the space has 18 networks, of which 12 were used for the profile; 7 fresh"
    ):
        validate(model, this, networks=7)


def test_another_device_is_refused(model: LatencyModel, elsewhere: Target) -> None:
    with pytest.raises(TableError, match="this host is not the device board"):
        validate(model, elsewhere)


def test_what_was_never_calibrated_is_refused(
    space: Space, this: Target, make_table: Callable[..., LatencyTable]
) -> None:
    imported = load_model(make_table(space, this, origin="imported"), space)
    with pytest.raises(TableError, match="were imported and never calibrated on whole networks"):
        validate(imported, this)
