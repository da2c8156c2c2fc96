"""Profiles on a simulated machine: what comes out is held against the latencies that the times were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import RuntimeUnavailable, TableError, TooNoisy
from hwnas.latency import load_model
from hwnas.machines import SimulatedMachine
from hwnas.profiling import profile, validate
from hwnas.spaces import Op, Space, make_space
from hwnas.targets import Target
from hwnas.timing.protocol import NETWORKS, OPS, Protocols

REAL = Protocols()


def latency_ms(op: Op) -> float:
    return 0.002 + op.macs / 4e7


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "nasbench201-tiny"])
def test_the_table_holds_the_latencies_that_the_times_were_made_from(
    elsewhere: Target, tmp_path: Path, name: str
) -> None:
    space = make_space(name)
    table = profile(space, elsewhere, journals=tmp_path, machine=SimulatedMachine(latency_ms), protocols=REAL)
    for op in space.distinct_ops:
        assert table.latency_ms(op) == pytest.approx(latency_ms(op), rel=1e-9)
    codes = space.sample(50, seed=1)
    expected = [sum(latency_ms(op) for _, op in space.ops(arch)) for arch in space.decode(codes)]
    np.testing.assert_allclose(load_model(table, space).predict(codes), expected, rtol=1e-3)


def test_drift_and_noise_are_taken_out(elsewhere: Target, tmp_path: Path) -> None:
    """A machine that is 30% slower at times, whose runs scatter by 2%: ops come out within 2%, networks within 1%."""
    space = make_space("mobilenetv3-tiny").fix(resolution=[24, 32])
    machine = SimulatedMachine(latency_ms, noise=0.02, drift=0.3, seed=5)
    table = profile(space, elsewhere, journals=tmp_path, machine=machine, protocols=REAL)
    quick = 0.98  # the 25% quantile of runs that scatter by 2% lies 1.3% below their median
    errors = [table.latency_ms(op) / latency_ms(op) - 1 for op in space.distinct_ops]
    assert np.quantile(np.abs(errors), 0.95) < 1 - quick
    report = validate(load_model(table, space), elsewhere, networks=30, seed=2, machine=machine, protocol=NETWORKS)
    assert report.summary.mape < 0.01
    assert report.summary.kendall_tau > 0.97


def test_a_resumed_profile_is_that_of_an_uninterrupted_one(elsewhere: Target, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        if what == "timing networks" and done > 100:
            raise Stop

    space = make_space("nasbench201-tiny")
    whole = profile(space, elsewhere, journals=tmp_path / "a", machine=SimulatedMachine(latency_ms), protocols=REAL)
    with pytest.raises(Stop):
        profile(
            space,
            elsewhere,
            journals=tmp_path / "b",
            machine=SimulatedMachine(latency_ms),
            protocols=REAL,
            progress=stop,
        )
    rest = SimulatedMachine(latency_ms)
    again = profile(space, elsewhere, journals=tmp_path / "b", machine=rest, protocols=REAL)
    assert again.rows == whole.rows
    assert again.manifest.fits[0].calibration_ms == whole.manifest.fits[0].calibration_ms


def test_the_time_limit_counts_simulated_seconds(elsewhere: Target, space: Space) -> None:
    machine = SimulatedMachine(latency_ms, noise=0.3, seed=1)
    programs = machine.form(elsewhere.recipe).lower_ops(space.distinct_ops)
    named = {op.key: program for op, program in programs.items()}
    short = Protocols(ops=OPS, networks=NETWORKS).ops
    measured = machine.time(named, elsewhere.recipe, short)
    assert machine.seconds < short.max_seconds * 1.5
    assert measured.passes >= short.min_sessions * short.session_passes
    assert measured.held.cores == ()


def test_too_noisy_a_machine_makes_no_table(elsewhere: Target, tmp_path: Path) -> None:
    space = make_space("nasbench201-tiny")
    machine = SimulatedMachine(latency_ms, noise=2.0, seed=3)
    with pytest.raises(TooNoisy, match="the machine is too noisy"):
        profile(space, elsewhere, journals=tmp_path, machine=machine, protocols=REAL)


def test_another_device_is_refused(elsewhere: Target, tmp_path: Path) -> None:
    machine = SimulatedMachine(latency_ms, device="phone")
    with pytest.raises(TableError, match="this machine is phone, not board"):
        profile(make_space("nasbench201-tiny"), elsewhere, journals=tmp_path, machine=machine)


def test_nothing_is_exported_for_it(elsewhere: Target, tmp_path: Path) -> None:
    form = SimulatedMachine(latency_ms).form(elsewhere.recipe)
    [program] = form.lower_ops([make_space("nasbench201-tiny").distinct_ops[0]]).values()
    with pytest.raises(RuntimeUnavailable, match="have no file"):
        form.write(program, tmp_path)
