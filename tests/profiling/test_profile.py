"""One real measurement of a small space, and what profiles of a simulated machine do with times."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, RuntimeUnavailable, TableError, TableMismatch, TooNoisy
from hwnas.latency import LatencyTable, load_model, read_table, write_table
from hwnas.lowering.networks import lower_ops
from hwnas.lowering.ops import OpsForm
from hwnas.machines import SimulatedMachine
from hwnas.profiling import profile
from hwnas.profiling.profiler import CALIBRATION_SEED, calibration_codes
from hwnas.spaces import Domain, Space
from hwnas.spaces.draws import distinct
from hwnas.targets import Recipe, Target
from hwnas.timing import Measurement, Protocol
from hwnas.timing.host import host_facts
from hwnas.timing.protocol import OPS, Protocols, usual

# The package exports a function of the module's name.
MODULE = importlib.import_module("hwnas.profiling.profiler")
SAMPLER = importlib.import_module("hwnas.timing.sampler")
SHORT = Protocol(visit_ms=0.2, session_passes=2, max_sessions=2, max_disagreement=1e3)


class Stop(Exception):
    """Ends a measurement from its progress callback."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Protocol:
    """Four short passes, for tests of what is measured and not of how long it takes."""
    monkeypatch.setattr("hwnas.timing.protocol.USUAL", Protocols(ops=SHORT, networks=SHORT))
    return SHORT


@pytest.fixture
def machine() -> SimulatedMachine:
    """A machine without a clock, whose runs scatter by 2%."""
    return SimulatedMachine(lambda op: 0.002 + op.macs / 4e7, noise=0.02, seed=1)


def entries(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()[1:]]


# -- what comes out --------------------------------------------------------------------------------------


def test_every_distinct_op_is_a_row(space: Space, this: Target, profiled: LatencyTable) -> None:
    assert sorted(profiled.rows) == sorted(op.key for op in space.distinct_ops)
    for row in profiled.rows.values():
        assert 0 < row.latency_ms_p25 <= row.latency_ms_p50 <= row.latency_ms_p90 < np.inf
        assert row.samples >= OPS.min_sessions * usual().ops.session_passes * OPS.min_runs
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
    assert {"architecture", "cpu", "cores", "flags", "scaling_governor", "scaling_max_freq"} <= set(manifest.host)
    assert set(manifest.host) == set(host_facts("cpu"))
    assert asdict(usual().ops).items() <= manifest.measurement.items()
    assert {"passes", "disagreement", "drift", "reference", "reference_ms"} <= set(manifest.measurement)
    [fit] = manifest.fits
    assert fit.domain == Domain.of(space)
    assert fit.seed == CALIBRATION_SEED
    assert len(fit.calibration_ms) == 8
    assert len(fit.scores) == 4
    assert fit.scores == sorted(fit.scores)
    assert {"scale", "ms per op", "ms per million weights", "ms per million values read"} <= set(fit.terms)
    assert asdict(usual().networks).items() <= fit.measurement.items()
    assert fit.validation is None


def test_it_predicts_after_a_round_trip(space: Space, this: Target, profiled: LatencyTable, tmp_path: Path) -> None:
    write_table(profiled, tmp_path / "t.csv")
    model = load_model(read_table(this, tmp_path / "t.csv"), space)
    codes = space.sample(20, seed=0)
    np.testing.assert_allclose(model.predict(codes), load_model(profiled, space).predict(codes), rtol=1e-4)
    assert (model.predict(codes) > 0).all()
    assert model.margin(0.8) == profiled.manifest.fits[0].scores[3]


def test_scores_are_of_networks_that_the_fit_never_saw(
    space: Space,
    this: Target,
    tmp_path: Path,
    short: Protocol,
    machine: SimulatedMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last networks are not calibrated on: other times for them change the scores, and no term."""
    first = profile(space, this, journals=tmp_path, networks=6, bound_networks=5, machine=machine)

    def slower(real: Callable[[Measurement], np.ndarray]) -> Callable[[Measurement], np.ndarray]:
        return lambda timed: np.concatenate([real(timed)[:6], real(timed)[6:] * 1.5])

    for name in ("latencies_ms", "worse_ms"):
        monkeypatch.setattr(MODULE, name, slower(getattr(MODULE, name)))
    second = profile(space, this, journals=tmp_path, networks=6, bound_networks=5, machine=machine)
    [a], [b] = first.manifest.fits, second.manifest.fits
    assert (a.terms, a.calibration_ms, a.held_out_mape) == (b.terms, b.calibration_ms, b.held_out_mape)
    np.testing.assert_allclose(np.array(b.scores) + 1, 1.5 * (np.array(a.scores) + 1))


def test_a_network_counts_with_the_worse_of_two_measurements(
    space: Space,
    this: Target,
    tmp_path: Path,
    short: Protocol,
    machine: SimulatedMachine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[Measurement] = []
    real = MODULE.worse_ms
    monkeypatch.setattr(MODULE, "worse_ms", lambda timed: (kept.append(timed), real(timed))[1])
    table = profile(space, this, journals=tmp_path, networks=6, bound_networks=5, machine=machine)
    [fit], [timed] = table.manifest.fits, kept
    codes = calibration_codes(space, 6, 5)[6:]
    errors = timed.halves_ms[:, 6:] / load_model(table, space).predict(codes) - 1
    np.testing.assert_allclose(fit.scores, np.sort(errors.max(axis=0)))


def test_the_same_networks_are_drawn_again(space: Space) -> None:
    codes = calibration_codes(space, 6, 9)
    assert len(np.unique(codes, axis=0)) == 15
    assert (calibration_codes(space, 6, 9) == codes).all()
    assert (calibration_codes(space, 8, 7) == codes).all()  # how many calibrate says nothing of which are drawn
    assert not (calibration_codes(space, 6, 9, seed=1) == codes).all()
    assert (distinct(space, 15, seed=CALIBRATION_SEED) == codes).all()


# -- going on --------------------------------------------------------------------------------------------


def test_an_interrupted_profile_goes_on(
    space: Space, this: Target, tmp_path: Path, short: Protocol, machine: SimulatedMachine
) -> None:
    part = space.fix(depth_1=1, kernel_2_1=(3, 5), expansion_3_1=(2, 3, 4))  # 6 networks

    def stop(at: str, after: int) -> Callable[..., None]:
        def progress(what: str, done: int, total: int, **_: str) -> None:
            if what == at and done == after:
                raise Stop

        return progress

    ops, networks = tmp_path / "ops.jsonl", tmp_path / "networks.jsonl"
    how_many = {"networks": 4, "bound_networks": 1}
    with pytest.raises(Stop):
        profile(part, this, journals=tmp_path, **how_many, progress=stop("timing ops", 10), machine=machine)
    first = entries(ops)
    assert len(first) == 10
    assert not networks.exists()
    with pytest.raises(Stop):
        profile(part, this, journals=tmp_path, **how_many, progress=stop("timing networks", 5), machine=machine)
    second = entries(ops)
    assert second[:10] == first
    assert Counter(str(entry["key"]) for entry in second) == {
        f"{p} {op.key}": 1 for p in range(4) for op in part.distinct_ops
    }
    timed = entries(networks)
    assert len(timed) == 5
    table = profile(part, this, journals=tmp_path, **how_many, machine=machine)
    assert entries(ops) == second
    assert entries(networks)[:5] == timed
    assert len(entries(networks)) == 4 * 5
    # The rows are what the journal holds, with the drift taken out.
    samples = {
        op.key: [entry["value"] for entry in second if str(entry["key"]).split(" ", 1)[1] == op.key]
        for op in part.distinct_ops
    }
    held = Measurement(samples_ms=samples, reference=next(iter(samples)), protocol=short)  # type: ignore[arg-type]
    for op in part.distinct_ops:
        assert table.rows[op.key].latency_ms_p25 == pytest.approx(held.p25_ms(op.key), rel=1e-9)
        assert table.rows[op.key].samples == sum(map(len, samples[op.key]))
    # A journal of another space is not gone on with, and rows of an older table stay.
    other = space.fix(kernel_2_1=5, depth_1=2)
    wider = profile(other, this, journals=tmp_path, **how_many, old=table, machine=machine)
    assert set(wider.rows) == {op.key for op in (*part.distinct_ops, *other.distinct_ops)}
    kept = {op.key for op in part.distinct_ops} - {op.key for op in other.distinct_ops}
    assert kept
    assert all(wider.rows[key] == table.rows[key] for key in kept)
    assert [fit.domain for fit in wider.manifest.fits] == [Domain.of(other)]


# -- only what is missing --------------------------------------------------------------------------------


def test_only_missing_ops_are_timed(
    space: Space, this: Target, tmp_path: Path, short: Protocol, machine: SimulatedMachine
) -> None:
    part = space.fix(depth_1=1)  # 6 networks
    old = profile(part, this, journals=tmp_path / "a", networks=4, bound_networks=1, machine=machine)
    missing = {op.key for op in space.distinct_ops} - set(old.rows)
    assert 0 < len(missing) < len(space.distinct_ops)
    table = profile(
        space, this, journals=tmp_path / "b", old=old, only_missing=True, networks=5, bound_networks=2, machine=machine
    )
    assert {str(entry["key"]).split(" ", 1)[1] for entry in entries(tmp_path / "b" / "ops.jsonl")} == missing
    assert {key: row for key, row in table.rows.items() if key in old.rows} == old.rows
    assert set(table.rows) == set(old.rows) | missing
    # The older fit was made on rows that are still there, so it stays; the wider one is for the whole space.
    assert table.manifest.fits[0] == old.manifest.fits[0]
    assert [fit.domain for fit in table.manifest.fits] == [Domain.of(part), Domain.of(space)]
    assert len(table.manifest.fits[1].calibration_ms) == 5
    load_model(table, space)


def test_nothing_missing_measures_nothing(
    space: Space, this: Target, profiled: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was timed")

    monkeypatch.setattr("hwnas.machines.local.time_programs", never)
    monkeypatch.setattr(MODULE, "lower_ops", never)
    again = profile(space, this, journals=tmp_path, old=profiled, only_missing=True, networks=4, bound_networks=0)
    assert again is profiled
    part = space.fix(depth_1=1)
    again = profile(part, this, journals=tmp_path, old=profiled, only_missing=True, networks=4, bound_networks=0)
    assert again is profiled


def test_a_table_with_all_rows_and_no_fit_gets_one(
    space: Space, this: Target, tmp_path: Path, short: Protocol, machine: SimulatedMachine
) -> None:
    how_many = {"networks": 4, "bound_networks": 1}
    fitted = profile(space, this, journals=tmp_path / "a", machine=machine, **how_many)
    old = replace(fitted, manifest=fitted.manifest.model_copy(update={"fits": []}))
    table = profile(space, this, journals=tmp_path / "b", old=old, only_missing=True, machine=machine, **how_many)
    assert not (tmp_path / "b" / "ops.jsonl").exists()
    assert table.rows == old.rows
    assert table.manifest.measurement == old.manifest.measurement
    assert len(table.manifest.fits) == 1


# -- a machine that is too noisy -------------------------------------------------------------------------


def uneven(monkeypatch: pytest.MonkeyPatch, *, first: int) -> None:
    """Visits that take another time each, from the `first` one on; those before it agree."""
    visits = iter(range(1_000_000))

    def visit(call: object, *_: object) -> list[float]:
        done = next(visits) - first
        if done < 0:
            return [1.0] * 4
        return [float(np.random.default_rng(done).uniform(0.5, 2.0))] * 4

    monkeypatch.setattr(SAMPLER, "visit", visit)


@pytest.mark.parametrize("what", ["ops", "networks"])
def test_too_noisy_a_machine_makes_no_table(
    space: Space, this: Target, tmp_path: Path, machine: SimulatedMachine, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    strict = replace(SHORT, max_disagreement=0.06)
    protocols = Protocols(ops=strict, networks=strict)
    real = SAMPLER.visit
    uneven(monkeypatch, first=0 if what == "ops" else 4 * len(space.distinct_ops))
    with pytest.raises(TooNoisy, match=r"the machine is too noisy: after 4 passes, .* Nothing was written"):
        profile(space, this, journals=tmp_path, networks=4, bound_networks=1, protocols=protocols, machine=machine)
    # What was noisy is not gone on with; what was not is.
    assert [path.name for path in tmp_path.iterdir()] == ([] if what == "ops" else ["ops.jsonl"])
    monkeypatch.setattr(SAMPLER, "visit", real)
    protocols = Protocols(ops=strict, networks=SHORT)
    if what == "networks":
        table = profile(
            space, this, journals=tmp_path, networks=4, bound_networks=1, protocols=protocols, machine=machine
        )
        assert {row.latency_ms_p25 for row in table.rows.values()} == {1.0}


# -- what is refused -------------------------------------------------------------------------------------


def test_another_device_is_refused(space: Space, elsewhere: Target, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"this host is not the device board: .*No Such CPU.*Measure a table on its"):
        profile(space, elsewhere, journals=tmp_path / "j")
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("runtime", ["roofline", "external"])
def test_what_cannot_be_timed_is_refused(space: Space, this: Target, tmp_path: Path, runtime: str) -> None:
    facts = this.recipe.model_dump(by_alias=True) | {"name": "made-up", "runtime": runtime, "opset": None}
    target = Target(this.device, Recipe.model_validate(facts | {"options": {}}))
    with pytest.raises(RuntimeUnavailable, match=rf"made-up cannot be timed \(runtime {runtime}\)"):
        profile(space, target, journals=tmp_path / "j")
    assert not (tmp_path / "j").exists()


def test_a_wrong_memory_limit_is_refused_before_anything_is_lowered(
    space: Space, this: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWNAS_MEMORY_GIB", "lots")
    monkeypatch.setattr(
        importlib.import_module("hwnas.profiling.profiler"), "lower_ops", lambda *_: pytest.fail("lowered")
    )
    with pytest.raises(InvalidValue, match="HWNAS_MEMORY_GIB is 'lots'"):
        profile(space, this, journals=tmp_path, networks=4, bound_networks=4)


def test_lowering_counts_ops(space: Space, this: Target) -> None:
    seen: list[tuple[str, int, int, str]] = []

    def progress(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        seen.append((what, done, total, unit))

    lower_ops(space, space.distinct_ops[:3], OpsForm(this.recipe), progress)
    assert seen == [("lowering", 0, 3, "ops"), ("lowering", 3, 3, "ops")]


def test_an_imported_table_is_not_added_to(
    space: Space, this: Target, make_table: Callable[..., LatencyTable], tmp_path: Path
) -> None:
    with pytest.raises(TableMismatch, match="was imported; measured rows cannot be added"):
        profile(space, this, journals=tmp_path / "j", old=make_table(space, this, origin="imported"))
    assert not (tmp_path / "j").exists()


def test_rows_of_another_version_of_the_runtime_are_not_mixed(
    space: Space, this: Target, tmp_path: Path, make_table: Callable[..., LatencyTable]
) -> None:
    old = make_table(space, this, versions={"onnxruntime": "1.2.3"})
    with pytest.raises(TableMismatch, match=r"measured with onnxruntime 1\.2\.3, and .* is installed: .*--replace"):
        profile(space, this, journals=tmp_path / "j", old=old, bound_networks=2, only_missing=True)


@pytest.mark.parametrize(
    ("networks", "bound_networks", "words"),
    [
        (3, 0, r"at least 4 calibration networks \(16 is usual\), not 3"),
        (16, 3, "has 18 networks under these restrictions; 16 calibration networks and 3 bound networks cannot be"),
    ],
)
def test_numbers_of_networks_are_checked_before_anything_is_timed(
    space: Space, this: Target, tmp_path: Path, networks: int, bound_networks: int, words: str
) -> None:
    with pytest.raises(InvalidValue, match=words):
        profile(space, this, journals=tmp_path / "j", networks=networks, bound_networks=bound_networks)
    assert not (tmp_path / "j").exists()
