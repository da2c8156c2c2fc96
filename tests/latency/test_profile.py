"""One real measurement of a small space, and what follows from it. No figure of this machine is judged here."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, TableError
from hwnas.latency import LatencyModel, LatencyTable, load_model, profile, read_table, validate, write_table
from hwnas.latency.profile import NETWORKS, OPS, calibration_codes, with_validation
from hwnas.latency.validate import _fresh
from hwnas.spaces import Domain, Space, make_space
from hwnas.targets import Target

# The package exports a function of the module's name.
MODULE = importlib.import_module("hwnas.latency.profile")


class Stop(Exception):
    """Ends a measurement from its progress callback."""


def test_every_distinct_op_is_a_row(space: Space, this: Target, profiled: LatencyTable) -> None:
    assert sorted(profiled.rows) == sorted(op.key for op in space.distinct_ops)
    for row in profiled.rows.values():
        assert 0 < row.latency_ms_p25 <= row.latency_ms_p50 <= row.latency_ms_p90 < np.inf
        assert row.samples >= OPS.min_passes * OPS.min_runs
    profiled.require(space)


def test_the_manifest_says_where_it_comes_from(space: Space, this: Target, profiled: LatencyTable) -> None:
    import onnxruntime

    manifest = profiled.manifest
    assert (manifest.device, manifest.recipe, manifest.recipe_hash) == (
        this.device.name,
        this.recipe.name,
        this.recipe.hash,
    )
    assert manifest.versions["onnxruntime"] == onnxruntime.__version__
    assert set(manifest.versions) == {"hwnas", "onnxruntime", "torch", "python", "system"}
    assert {"architecture", "cpu", "cores", "flags", "scaling_governor", "scaling_max_freq"} == set(manifest.host)
    assert asdict(OPS).items() <= manifest.measurement.items()
    [fit] = manifest.fits
    assert fit.domain == Domain.of(space)
    assert fit.networks == 8
    assert set(fit.factors) == {"stem", "stage1", "stage2", "stage3", "head"}
    assert asdict(NETWORKS).items() <= fit.measurement.items()
    assert fit.validation is None


def test_it_predicts_after_a_round_trip(space: Space, this: Target, profiled: LatencyTable, tmp_path: Path) -> None:
    write_table(profiled, tmp_path / "t.csv")
    model = load_model(read_table(this, tmp_path / "t.csv"), space)
    codes = space.sample(20, seed=0)
    np.testing.assert_allclose(model.predict(codes), load_model(profiled, space).predict(codes), rtol=1e-5)
    assert (model.predict(codes) > 0).all()


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()[1:]]


def test_an_interrupted_profile_goes_on(
    space: Space, this: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    short = OPS.__class__(visit_ms=0.2, min_passes=3, max_passes=3)
    monkeypatch.setattr(MODULE, "OPS", short)
    monkeypatch.setattr(MODULE, "NETWORKS", short)
    part = space.fix(depth_1=1, kernel_2_1=3)

    def stop(at: str, after: int):
        def progress(what: str, done: int, total: int) -> None:
            if what == at and done == after:
                raise Stop

        return progress

    ops, networks = tmp_path / "ops.jsonl", tmp_path / "networks.jsonl"
    with pytest.raises(Stop):
        profile(part, this, journals=tmp_path, networks=4, progress=stop("timing ops", 10))
    first = entries(ops)
    assert len(first) == 10
    assert not networks.exists()
    with pytest.raises(Stop):
        profile(part, this, journals=tmp_path, networks=4, progress=stop("timing networks", 5))
    second = entries(ops)
    assert second[:10] == first
    assert Counter(str(entry["key"]) for entry in second) == {
        f"{p} {op.key}": 1 for p in range(3) for op in part.distinct_ops
    }
    timed = entries(networks)
    assert len(timed) == 5
    table = profile(part, this, journals=tmp_path, networks=4)
    assert entries(ops) == second
    assert entries(networks)[:5] == timed
    assert len(entries(networks)) == 3 * 4
    # The rows are what the journal holds.
    for op in part.distinct_ops:
        held = np.concatenate([entry["value"] for entry in second if str(entry["key"]).split(" ", 1)[1] == op.key])
        assert table.rows[op.key].latency_ms_p25 == np.quantile(held, 0.25)
        assert table.rows[op.key].samples == len(held)
    # A journal of another space is not gone on with, and rows of an older table stay.
    other = space.fix(depth_1=1, kernel_2_1=5)
    wider = profile(other, this, journals=tmp_path, networks=4, old=table)
    assert set(wider.rows) == {op.key for op in (*part.distinct_ops, *other.distinct_ops)}
    kept = {op.key for op in part.distinct_ops} - {op.key for op in other.distinct_ops}
    assert kept
    assert all(wider.rows[key] == table.rows[key] for key in kept)
    assert [fit.domain for fit in wider.manifest.fits] == [Domain.of(other)]


def test_another_device_is_refused(space: Space, elsewhere: Target, profiled: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"this host is not the device board: .*No Such CPU.*must be measured on its"):
        profile(space, elsewhere, journals=tmp_path / "j")
    assert not (tmp_path / "j").exists()
    with pytest.raises(TableError, match="this host is not the device board"):
        validate(load_model(profiled, space), elsewhere)


def test_too_few_networks_are_refused_before_anything_is_timed(space: Space, this: Target, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"at least 4 calibration networks \(16 is usual\), not 3"):
        profile(space, this, journals=tmp_path / "j", networks=3)
    assert not (tmp_path / "j").exists()


def test_validation_is_of_fresh_networks(
    space: Space, this: Target, profiled: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = NETWORKS.__class__(visit_ms=0.5, min_passes=4, max_passes=4)
    monkeypatch.setattr(MODULE, "NETWORKS", short)
    model = load_model(profiled, space)
    report = validate(model, this, networks=5, seed=3)
    summary = report.summary
    assert (summary.networks, summary.seed) == (5, 3)
    assert all(np.isfinite(value) for value in summary.model_dump().values() if isinstance(value, float))
    assert summary.mape == np.abs(report.predicted_ms / report.measured_ms - 1).mean()
    assert summary.within_5pct <= summary.within_10pct
    assert (report.measured_ms > 0).all()
    np.testing.assert_array_equal(report.predicted_ms, model.predict(report.codes))
    calibrated = {tuple(row) for row in calibration_codes(space, 8)}
    fresh = {tuple(row) for row in report.codes}
    assert len(fresh) == 5
    assert not fresh & calibrated
    worst = report.worst(model, 2)
    errors = np.abs(report.predicted_ms / report.measured_ms - 1)
    assert [abs(error) for _, error, _ in worst] == sorted(errors, reverse=True)[:2]
    for arch, error, parts in worst:
        [row] = np.flatnonzero((report.codes == space.encode([arch])).all(axis=1))
        assert error == report.predicted_ms[row] / report.measured_ms[row] - 1
        assert sum(parts.values()) == pytest.approx(report.predicted_ms[row])
    # It is kept in the manifest.
    write_table(with_validation(profiled, space, summary), tmp_path / "t.csv")
    assert read_table(this, tmp_path / "t.csv").manifest.fits[0].validation == summary


@pytest.mark.parametrize("seed", range(3))
def test_networks_of_the_calibration_are_known_in_a_part_of_its_domain(profiled: LatencyTable, seed: int) -> None:
    """The same network has other codes in a restricted space, and other values where a variable does not matter."""
    whole = make_space("mobilenetv3-tiny").fix(resolution=24, depth_2=1, depth_3=1, kernel_2_1=3, kernel_3_1=3)
    part = whole.fix(depth_1=(1, 2), kernel_1_1=(5, 7), kernel_1_2=(5, 7), kernel_1_3=7, expansion_1_1=(3, 4))
    networks = 400
    fit = profiled.manifest.fits[0].model_copy(update={"domain": Domain.of(whole), "networks": networks})

    def blocks(space: Space, codes: np.ndarray) -> set[tuple[str, ...]]:
        return {tuple(op.key for _, op in space.ops(arch)) for arch in space.decode(codes)}

    zero = part.slot_sum(lambda op: 0.0)
    model = LatencyModel(space=part, target=profiled.target.name, total=zero, plain=zero, fit=fit)
    calibrated = blocks(whole, calibration_codes(whole, networks))
    all_of_part = blocks(part, part.sample(20_000, seed=0))
    assert len(all_of_part) == part.size
    assert calibrated & all_of_part
    left = all_of_part - calibrated
    assert blocks(part, _fresh(model, len(left), seed)) == left
    with pytest.raises(InvalidValue, match=f"{part.size} networks, of which {len(all_of_part & calibrated)} were used"):
        _fresh(model, len(left) + 1, seed)


def test_bounds_of_a_validation(space: Space, this: Target, profiled: LatencyTable) -> None:
    model = load_model(profiled, space)
    with pytest.raises(InvalidValue, match="at least 2 networks, not 1"):
        validate(model, this, networks=1)
    with pytest.raises(
        InvalidValue, match=r"the space has 18 networks, of which \d were used for calibration; 18 fresh"
    ):
        validate(model, this, networks=18)
