"""A new target from the tables of four others, as users do it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwnas import workflows
from hwnas.errors import InvalidValue, OutputError, TableError, TableMismatch, UnknownName
from hwnas.files import only_one
from hwnas.latency import LatencyTable, load_model, read_table, write_table
from hwnas.latency.manifest import Fit
from hwnas.latency.table import Row, table_lock
from hwnas.machines import SimulatedMachine
from hwnas.spaces import Codes, Domain, Op, Space, make_space
from hwnas.targets import resolve_target
from hwnas.timing import Protocol
from hwnas.timing.protocol import Protocols

RECIPE = "onnxruntime-cpu-fp32"
DEVICES = {"slow": (0.01, 1e6, 2e7), "small": (0.002, 4e6, 1e8), "wide": (0.001, 6e7, 1e7), "even": (0.004, 2e7, 4e7)}
NEW = (0.003, 8e6, 3e7)
SHORT = Protocol(visit_ms=0.2, session_passes=2, max_sessions=2, max_disagreement=1e3)


def cost(op: Op, device: tuple[float, float, float]) -> float:
    """Milliseconds of an op: overhead, arithmetic, weights."""
    overhead, macs, params = device
    return overhead + op.macs / macs + op.params / params


def latencies(space: Space, codes: Codes, device: tuple[float, float, float], seed: int) -> np.ndarray:
    exact = space.slot_sum(lambda op: cost(op, device))(codes)
    return exact * np.exp(0.01 * np.random.default_rng(seed).normal(size=len(codes)))


@pytest.fixture(scope="module")
def whole() -> Space:
    return make_space("mobilenetv3-tiny").fix(resolution=24)


@pytest.fixture
def home(
    whole: Space, make_table: Callable[..., LatencyTable], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home with four devices and their tables, and a new device without one."""
    home = tmp_path / "home"
    monkeypatch.setenv("HWNAS_HOME", str(home))
    for i, (name, device) in enumerate({**DEVICES, "new": NEW}.items()):
        path = home / "devices" / f"{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'schema = 1\nname = "{name}"\nkind = "cpu"\ndescription = "made up"\n[match]\ncpu = "^{name}$"\n'
            '[hardware]\nsource = "made up"\n'
        )
        if name == "new":
            continue
        target = resolve_target(f"{name}/{RECIPE}")
        codes = np.unique(whole.sample(60, seed=i), axis=0)[:30]
        rows = {}
        for op in whole.distinct_ops:
            ms = cost(op, device)
            rows[op.key] = Row(latency_ms_p25=ms, latency_ms_p50=ms, latency_ms_p90=ms, samples=9)
        fit = Fit(
            domain=Domain.of(whole),
            seed=0,
            calibration_ms=latencies(whole, codes, device, i).tolist(),
            terms={"scale": 1.0},
            held_out_mape=0.01,
            scores=[0.0] * 20,
            codes=codes.tolist(),
            measurement={},
        )
        table = make_table(whole, target, versions={})
        write_table(
            LatencyTable(target=target, rows=rows, manifest=table.manifest).with_fit(fit),
            home / "latency_tables" / f"{target.name}.csv",
        )
    return home


@pytest.fixture
def measurements(whole: Space, tmp_path: Path) -> Path:
    """Ten networks of the new device."""
    codes = np.unique(whole.sample(30, seed=77), axis=0)
    codes = codes[np.random.default_rng(0).permutation(len(codes))[:10]]
    return written(tmp_path / "ten.csv", whole, codes, latencies(whole, codes, NEW, 9))


def written(path: Path, space: Space, codes: Codes, times: np.ndarray) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("arch", "latency_ms"))
        writer.writerows((json.dumps(dict(arch)), ms) for arch, ms in zip(space.decode(codes), times, strict=True))
    return path


FOUR = [f"{name}/*" for name in DEVICES]


def test_a_transferred_table_predicts_and_bounds(home: Path, whole: Space, measurements: Path) -> None:
    answer = workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    target = resolve_target(f"new/{RECIPE}")
    table = read_table(target)
    assert table.origin == "transferred"
    assert table.manifest.measurement["method"] == answer.method
    assert all(name in str(table.manifest.measurement["sources"]) for name in DEVICES)
    assert table.manifest.measurement["measurements"] == "ten.csv"
    model = load_model(table, whole)
    assert model.source == "transferred"
    codes = whole.sample(300, seed=5)
    exact = whole.slot_sum(lambda op: cost(op, NEW))(codes)
    assert np.abs(model.predict(codes) / exact - 1).mean() < 0.03
    assert model.margin(0.9) == pytest.approx(answer.upper_margin)
    measured = latencies(whole, codes, NEW, 3)
    assert (measured <= model.predict_upper(codes, 0.9)).mean() > 0.75
    assert set(answer.sources) == {f"{name}/{RECIPE}" for name in DEVICES}


def test_the_table_is_searched_and_validated_against_a_file(
    home: Path, whole: Space, measurements: Path, tmp_path: Path
) -> None:
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    codes = np.unique(whole.sample(80, seed=8), axis=0)
    against = written(tmp_path / "against.csv", whole, codes, latencies(whole, codes, NEW, 4))
    answer = workflows.validate_against(whole, f"new/{RECIPE}", against)
    assert answer.networks == len(codes)
    assert answer.mape < 0.04
    assert answer.spearman > 0.95
    assert answer.below_upper is not None
    assert answer.below_upper > 0.7


def test_the_source_of_a_table_is_asked_for_again_for_another_space(
    home: Path, whole: Space, measurements: Path
) -> None:
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    table = read_table(resolve_target(f"new/{RECIPE}"))
    with pytest.raises(TableError, match=r"was transferred from other targets. Transfer it again"):
        load_model(table, make_space("mobilenetv3-tiny"))


def test_a_measured_table_is_kept(home: Path, whole: Space, measurements: Path) -> None:
    with pytest.raises(TableMismatch, match="was measured; transferred rows cannot be added"):
        workflows.transfer(whole, f"slow/{RECIPE}", FOUR, measurements)
    workflows.transfer(whole, f"slow/{RECIPE}", FOUR, measurements, replace=True)
    assert read_table(resolve_target(f"slow/{RECIPE}")).origin == "transferred"


def test_a_measured_table_is_kept_before_anything_is_timed(home: Path, whole: Space) -> None:
    machine = SimulatedMachine(lambda op: pytest.fail("timed"))
    with pytest.raises(TableMismatch, match="was measured; transferred rows cannot be added"):
        workflows.profile_few_shot(whole, f"slow/{RECIPE}", FOUR, machine=machine)


def test_transferred_tables_are_no_sources(
    home: Path, whole: Space, measurements: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    answer = workflows.transfer(whole, f"slow/{RECIPE}", [*FOUR, "new/*"], measurements, replace=True)
    assert f"new/{RECIPE}" not in answer.sources
    assert "it was transferred itself" in caplog.text


def test_failed_measurements_are_left_out(
    home: Path, whole: Space, measurements: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = measurements.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + ",0.003"
    measurements.write_text("\n".join(lines))
    assert workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements).networks == 9
    assert "1 of 10 measurements are more than 5 times off" in caplog.text
    assert "0.003 ms" in caplog.text


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds")])
def test_another_unit_is_seen_beside_the_sources(
    home: Path, whole: Space, measurements: Path, factor: float, unit: str
) -> None:
    header, *lines = measurements.read_text().splitlines()
    cells = [line.rpartition(",") for line in lines]
    measurements.write_text("\n".join([header, *(f"{arch},{float(ms) * factor}" for arch, _, ms in cells)]))
    with pytest.raises(InvalidValue, match=f"the unit looks like {unit}"):
        workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)


def test_two_measurements_are_too_few(home: Path, whole: Space, measurements: Path) -> None:
    measurements.write_text("\n".join(measurements.read_text().splitlines()[:3]))
    with pytest.raises(InvalidValue, match=r"2 usable measurements .* at least 3"):
        workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)


def test_sources_that_do_not_fit(home: Path, whole: Space, measurements: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="matches no latency table"):
        workflows.transfer(whole, f"new/{RECIPE}", ["nothing/*"], measurements)
    path = tmp_path / "cells.csv"
    path.write_text("arch,latency_ms\n")
    with pytest.raises(TableError, match=r"no source shares the ops of nasbench201: .* and 3 more"):
        workflows.transfer("nasbench201", f"new/{RECIPE}", FOUR, path)
    with pytest.raises(InvalidValue, match="is the only one"):
        workflows.transfer(whole, f"new/{RECIPE}", ["slow/*"], measurements)
    with pytest.raises(UnknownName, match="method of transfer"):
        workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements, method="guess")


def test_networks_are_asked_for(home: Path, whole: Space, measurements: Path, tmp_path: Path) -> None:
    first = workflows.next_networks(whole, FOUR, count=5, out=tmp_path / "ask.csv")
    assert len(first.networks) == 5
    assert len((tmp_path / "ask.csv").read_text().splitlines()) == 6
    (tmp_path / "ask.csv").write_text("filled in")
    with pytest.raises(OutputError, match=r"ask.csv exists, .* name another file with --out"):
        workflows.next_networks(whole, FOUR, count=5, out=tmp_path / "ask.csv")
    assert (tmp_path / "ask.csv").read_text() == "filled in"
    codes = whole.sample(200, seed=1)
    budget = float(np.median(whole.slot_sum(lambda op: cost(op, NEW))(codes)))
    following = workflows.next_networks(whole, FOUR, measurements=measurements, budgets_ms=[budget])
    assert len(following.networks) <= 1
    [found] = [one.arch for one in following.found]
    assert found is not None
    assert set(found) == set(whole.column)
    with pytest.raises(InvalidValue, match="--budget-ms"):
        workflows.next_networks(whole, FOUR, measurements=measurements)


def test_no_file_is_written_when_nothing_is_to_be_measured(
    home: Path, whole: Space, measurements: Path, tmp_path: Path
) -> None:
    settled = workflows.next_networks(
        whole, FOUR, measurements=measurements, budgets_ms=[1e6], out=tmp_path / "none.csv"
    )
    assert settled.networks == []
    assert settled.out is None
    assert not (tmp_path / "none.csv").exists()


def test_the_transfers_of_other_spaces_are_kept(
    home: Path, whole: Space, measurements: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    path = home / "latency_tables" / f"new/{RECIPE}.csv"
    table, other, larger = read_table(resolve_target(f"new/{RECIPE}")), make_space("fbnet"), make_space(whole.name)
    row = Row(latency_ms_p25=1.0, latency_ms_p50=1.0, latency_ms_p90=1.0, samples=1)
    rows = {**table.rows, **{op.key: row for op in (*other.distinct_ops, *larger.distinct_ops)}}
    [fit] = table.manifest.fits
    table = LatencyTable(target=table.target, rows=rows, manifest=table.manifest)
    for space in (other, larger):
        table = table.with_fit(fit.model_copy(update={"domain": Domain.of(space), "codes": []}))
    write_table(table, path)
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    again = read_table(table.target)
    assert set(again.rows) == set(rows)
    assert [kept.domain for kept in again.manifest.fits] == [Domain.of(other), Domain.of(whole)]
    assert caplog.text.count("the transfer of mobilenetv3-tiny is dropped") == 1
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements, replace=True)
    assert set(read_table(table.target).rows) == {op.key for op in whole.distinct_ops}


def test_a_shipped_table_is_not_hidden_unasked(
    home: Path, whole: Space, measurements: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = "amd-epyc-f25m17-2c/onnxruntime-cpu-fp32"
    with pytest.raises(TableMismatch, match=r"the shipped table of amd.* was measured; .* --replace"):
        workflows.transfer(whole, shipped, FOUR, measurements)
    with pytest.raises(TableMismatch, match=r"the shipped table of amd.* was measured; .* --replace"):
        workflows.import_networks(whole, shipped, measurements)
    workflows.transfer(whole, shipped, FOUR, measurements, tables=home / "other")
    assert "will replace the shipped one" not in caplog.text
    workflows.transfer(whole, shipped, FOUR, measurements, replace=True)
    assert "will replace the shipped one" in caplog.text
    assert read_table(resolve_target(shipped)).origin == "transferred"


def test_sources_that_cannot_be_checked_are_an_error_before_anything_is_timed(home: Path, whole: Space) -> None:
    machine = SimulatedMachine(lambda op: pytest.fail("timed"))
    with pytest.raises(InvalidValue, match="is the only one; add tables with --like"):
        workflows.profile_few_shot(whole, f"new/{RECIPE}", ["slow/*"], machine=machine)
    with pytest.raises(TableError, match="--like 'nothing/"):
        workflows.profile_few_shot(whole, f"new/{RECIPE}", ["nothing/*"], machine=machine)
    with pytest.raises(InvalidValue, match="is the only one; add tables with --from"):
        workflows.next_networks(whole, ["slow/*"])


def test_one_process_times_a_target(home: Path, whole: Space) -> None:
    machine = SimulatedMachine(lambda op: pytest.fail("timed"))
    path = home / "latency_tables" / f"new/{RECIPE}.csv"
    with only_one(table_lock(path), "a test"), pytest.raises(OutputError, match="another hwnas process"):
        workflows.profile_few_shot(whole, f"new/{RECIPE}", FOUR, machine=machine)


def test_a_table_that_cannot_be_read_is_left_out_unless_it_is_named(
    home: Path, whole: Space, measurements: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = home / "latency_tables" / f"even/{RECIPE}.csv"
    broken.write_text(broken.read_text().rpartition("\n")[0])
    answer = workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    assert len(answer.sources) == 3
    assert "1 tables cannot be read and are left out" in caplog.text
    for named in (str(broken), f"even/{RECIPE}"):
        with pytest.raises(TableError, match="was changed after it was written"):
            workflows.transfer(whole, f"new/{RECIPE}", [*FOUR, named], measurements)
    with pytest.raises(TableError, match="none of the tables of --from can be read"):
        workflows.transfer(whole, f"new/{RECIPE}", ["even/*"], measurements)


def test_a_comparison_leaves_out_failed_measurements_and_sees_the_unit(
    home: Path, whole: Space, measurements: Path
) -> None:
    workflows.transfer(whole, f"new/{RECIPE}", FOUR, measurements)
    header, *lines = measurements.read_text().splitlines()
    archs, times = zip(*((line.rpartition(",")[0], float(line.rpartition(",")[2])) for line in lines), strict=True)
    rows = [f"{arch},{ms}" for arch, ms in zip(archs, [0.00003, *times[1:]], strict=True)]
    measurements.write_text("\n".join([header, *rows]))
    answer = workflows.validate_against(whole, f"new/{RECIPE}", measurements)
    assert (answer.networks, answer.failed) == (9, 1)
    assert answer.mape < 0.05
    measurements.write_text("\n".join([header, *(f"{a},{ms / 1e3}" for a, ms in zip(archs, times, strict=True))]))
    with pytest.raises(InvalidValue, match="the table predicts: the unit looks like seconds"):
        workflows.validate_against(whole, f"new/{RECIPE}", measurements)


def test_few_networks_are_timed_instead_of_ops(home: Path, whole: Space) -> None:
    machine = SimulatedMachine(lambda op: cost(op, NEW), noise=0.01, seed=2)
    answer = workflows.profile_few_shot(
        whole,
        f"new/{RECIPE}",
        FOUR,
        count=10,
        machine=machine,
        protocols=Protocols(few=SHORT),
    )
    assert answer.networks == 10
    model = load_model(read_table(resolve_target(f"new/{RECIPE}")), whole)
    codes = whole.sample(300, seed=5)
    exact = whole.slot_sum(lambda op: cost(op, NEW))(codes)
    assert np.abs(model.predict(codes) / exact - 1).mean() < 0.04
    with pytest.raises(InvalidValue, match="--few-shot needs at least 3"):
        workflows.profile_few_shot(whole, f"new/{RECIPE}", FOUR, count=2)
