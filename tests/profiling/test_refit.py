"""A latency model that is fitted again with networks timed after the profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import TableError
from hwnas.latency import LatencyTable, load_model
from hwnas.machines import SimulatedMachine
from hwnas.profiling import profile
from hwnas.profiling.profiler import calibration_codes
from hwnas.profiling.references import references_for
from hwnas.profiling.refit import refitted
from hwnas.spaces import Space, make_space
from hwnas.targets import Target


@pytest.fixture(scope="module")
def space() -> Space:
    return make_space("mobilenetv3-tiny").fix(resolution=24)


@pytest.fixture
def machine() -> SimulatedMachine:
    return SimulatedMachine(lambda op: 0.002 + op.macs / 4e7, noise=0.02, seed=1)


@pytest.fixture
def table(space: Space, this: Target, machine: SimulatedMachine, tmp_path: Path) -> LatencyTable:
    return profile(space, this, journals=tmp_path, networks=8, bound_networks=19, machine=machine)


def test_the_bound_covers_what_missed_it(table: LatencyTable, space: Space) -> None:
    before = load_model(table, space)
    codes = space.encode([space.largest])
    [predicted], [bound] = before.predict(codes), before.predict_upper(codes)
    after = refitted(table, space, {space.largest: 1.5 * bound})
    assert before.predict_upper(codes)[0] < 1.5 * bound <= after.predict_upper(codes)[0]
    assert predicted < after.predict(codes)[0] < 1.5 * bound
    assert after.fit is not None
    assert len(after.fit.scores) == 20


def test_a_measurement_as_predicted_changes_little(table: LatencyTable, space: Space) -> None:
    before, codes = load_model(table, space), space.sample(50, seed=3)
    arch = space.decode(codes[:1])[0]
    after = refitted(table, space, {arch: float(before.predict(codes[:1])[0])})
    assert after.predict(codes) == pytest.approx(before.predict(codes), rel=0.02)
    assert after.margin() == pytest.approx(before.margin(), abs=0.02)


def test_it_draws_the_networks_of_the_profile(
    table: LatencyTable, space: Space, machine: SimulatedMachine, this: Target, tmp_path: Path
) -> None:
    """The bundle of a later round is timed among the same references."""
    before, after = load_model(table, space), refitted(table, space, {space.largest: 1.0})
    found = [
        {
            name: reference.profiled_ms
            for name, reference in references_for(model, 0.01, machine.form(this.recipe), tmp_path / str(i)).items()
        }
        for i, model in enumerate((before, after))
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_bound_networks_are_stored_in_their_order(table: LatencyTable, space: Space) -> None:
    fit = table.fit_for(space)
    assert fit is not None
    codes = calibration_codes(space, 8, 19, seed=fit.seed)[8:]
    errors = np.array(fit.bound_ms) / load_model(table, space).predict(codes) - 1
    assert np.sort(errors) == pytest.approx(fit.scores)
    assert fit.bound_networks == 19


def test_an_older_table_says_what_helps(table: LatencyTable, space: Space) -> None:
    fit = table.fit_for(space)
    assert fit is not None
    older = table.with_fit(fit.model_copy(update={"bound_ms": []}))
    assert refitted(older, space, {}).predict(space.sample(9, seed=0)).shape == (9,)
    with pytest.raises(TableError, match=r"cannot be refitted. Profile again: hwnas profile .* --replace"):
        refitted(older, space, {space.largest: 1.0})
    empty = replace(table, manifest=table.manifest.model_copy(update={"fits": []}))
    with pytest.raises(TableError):
        refitted(empty, space, {space.largest: 1.0})
