"""Profile and validation as use cases, on a simulated machine."""

from __future__ import annotations

import json

import pytest

from hwnas import workflows
from hwnas.latency import read_table
from hwnas.machines import SimulatedMachine


def latency_ms(op):
    return 0.01 + op.macs / 1e8


def test_profile_and_validate_from_python(space, elsewhere, tmp_path):
    how = {"tables": str(tmp_path), "networks": 6}
    machine = SimulatedMachine(latency_ms)
    answer = workflows.profile(space, elsewhere, bound_networks=4, machine=machine, **how)
    assert answer.table == str(tmp_path / f"{elsewhere.name}.csv")
    assert (answer.target, answer.space, answer.up_to_date) == (elsewhere.name, space.name, False)
    assert (answer.ops, answer.calibration_networks, answer.bound_networks) == (len(space.distinct_ops), 6, 4)
    assert not [path for path in (tmp_path / "board").iterdir() if path.is_dir()], "the record of the measurement goes"
    again = workflows.profile(space, elsewhere, bound_networks=4, only_missing=True, machine=machine, **how)
    assert again == answer.model_copy(update={"up_to_date": True})
    validated = workflows.validate(space, elsewhere, machine=machine, **how)
    assert validated.networks == 6
    assert validated.mape == pytest.approx(0, abs=1e-4)
    assert len(validated.worst) == 5
    kept = read_table(elsewhere, tmp_path / f"{elsewhere.name}.csv").fit_for(space).validation
    assert validated.document().items() >= json.loads(kept.model_dump_json()).items()
