"""Other verbs find the tables of a run, and no figure of a user's table changes."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hwnas.latency import read_table, write_table
from hwnas.latency.manifest import Fit
from hwnas.pipeline.tables import offer_table
from hwnas.spaces import Domain, make_space
from hwnas.targets import table_path

VALIDATION = {
    "networks": 6, "seed": 3, "mape": 0.01, "noise_floor": 0.01, "within_5pct": 1.0, "within_10pct": 1.0,
    "kendall_tau": 1.0, "kendall_tau_repeat": 1.0, "speed": 1.0, "confidence": 0.95, "baselines": {}, "spread": 0.1,
    "date": "2026-11-28",
}  # fmt: skip


def fit(space, first_ms=0.5):
    return Fit(
        domain=Domain.of(space), seed=1, calibration_ms=[first_ms, 0.6], terms={"scale": 0.9}, held_out_mape=0.01,
        scores=[0.01], measurement={},
    )  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_shipped_tables")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def offered(this, make_table, tmp_path, home):
    """A function that offers a made-up table of a space as the run in `out` would, and returns its path there."""

    def offer(space, out="out", first_ms=0.5, slower=1.0):
        table = make_table(space, this).with_fit(fit(space, first_ms))
        rows = {
            key: replace(row, **{f"latency_ms_p{q}": slower * getattr(row, f"latency_ms_p{q}") for q in (25, 50, 90)})
            for key, row in table.rows.items()
        }
        profiled = tmp_path / out / "stages" / "profile"
        write_table(replace(table, rows=rows), profiled / "table.csv")
        plan = SimpleNamespace(
            context=SimpleNamespace(target=this, space=space),
            profile=SimpleNamespace(folder=profiled),
            validate=SimpleNamespace(result=lambda: {"summary": VALIDATION}),
        )
        return offer_table(plan, tmp_path / out)

    return offer


def content(path):
    return {each: each.read_bytes() for each in (path, path.with_suffix(".toml"))}


def test_a_first_table_is_found_with_its_validation(offered, space, this, home, tmp_path, caplog):
    path = offered(space)
    assert path == tmp_path / "out" / "latency_tables" / f"{this.name}.csv"
    assert table_path(this) == home / "latency_tables" / f"{this.name}.csv"
    for table in (read_table(this), read_table(this, path)):
        assert table.fit_for(space).validation.mape == 0.01
    assert not caplog.records
    before = content(table_path(this))
    offered(space, out="moved")
    assert content(table_path(this)) == before
    assert not caplog.records


def test_ops_of_another_space_are_added(offered, space, this, caplog):
    offered(space)
    before = read_table(this)
    other = make_space("mobilenetv3-tiny").fix(resolution=32)
    offered(other, out="other")
    after = read_table(this)
    assert all(after.rows[key] == row for key, row in before.rows.items())
    assert after.fit_for(space) == before.fit_for(space)
    assert after.fit_for(other).validation.mape == 0.01
    assert not caplog.records


@pytest.mark.parametrize("change", [{"slower": 1.5}, {"first_ms": 0.7}])
def test_other_figures_stay_and_the_command_is_named(offered, space, this, tmp_path, caplog, change):
    offered(space)
    before = content(table_path(this))
    with caplog.at_level(logging.WARNING):
        path = offered(space, out="second run", **change)
    assert content(table_path(this)) == before
    assert f"your table, {table_path(this)}, has other figures for " in caplog.text
    assert f"Use it with: --tables '{tmp_path / 'second run' / 'latency_tables'}'" in caplog.text
    assert read_table(this, path).fit_for(space)


def test_a_table_that_cannot_be_used_and_a_home_that_is_no_folder(offered, space, this, home, monkeypatch, caplog):
    offered(space)
    place = table_path(this)
    place.write_text("mine")
    offered(space)
    assert "has the columns ['mine']" in caplog.text
    assert place.read_text() == "mine"
    shutil.rmtree(home)
    home.write_text("mine")
    path = offered(space)
    assert "which is a file" in caplog.text
    assert path.is_file()


def test_a_shipped_table_stays_in_use(offered, space, this, tmp_path, monkeypatch, caplog):
    offered(space)
    shipped = table_path(this)
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "other"))
    monkeypatch.setattr("hwnas.pipeline.tables.table_path", lambda target: shipped)
    offered(space)
    assert not (tmp_path / "other" / "latency_tables").exists()
    assert f"the shipped one, {shipped}, is found first" in caplog.text
