"""Profiles of several machines at the same time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from hwnas import workflows
from hwnas.errors import InvalidValue, TooNoisy
from hwnas.files import write_whole
from hwnas.files.spec import toml_text
from hwnas.latency import read_table
from hwnas.machines import SimulatedMachine
from hwnas.progress import Progress, silent
from hwnas.spaces import Space
from hwnas.targets import detect_host, resolve_target
from hwnas.targets.device import describe
from hwnas.workflows.side_by_side import side_by_side


class Named(SimulatedMachine):
    """A simulated machine with a name."""

    def __init__(self, name: str, slowness: float) -> None:
        super().__init__(lambda op: slowness * (0.002 + op.macs / 4e7), noise=0.005)
        self.name = name


def test_different_machines_work_at_the_same_time_and_one_in_turn() -> None:
    meeting, order = threading.Barrier(2, timeout=30), list[str]()

    def work(name: str) -> Any:
        def run(progress: Progress) -> str:
            if name != "a2":
                meeting.wait()  # a1 and b meet only if they run at the same time
            order.append(name)
            progress("timing", 1, 1)
            return name.upper()

        return run

    told: list[str] = []
    found, failed = side_by_side(
        {"a1": ("a", work("a1")), "b": ("b", work("b")), "a2": ("a", work("a2"))},
        lambda what, done, total, **_: told.append(what),
    )
    assert (list(found.values()), failed) == (["A1", "B", "A2"], {})
    assert order.index("a1") < order.index("a2")
    assert sorted(told) == ["a1: timing", "a2: timing", "b: timing"]


def test_an_error_ends_one_target_only() -> None:
    def noisy(progress: Progress) -> int:
        raise TooNoisy("too noisy")

    found, failed = side_by_side({"a": ("a", noisy), "b": ("b", lambda progress: 1)}, silent)
    assert found == {"b": 1}
    assert isinstance(failed["a"], TooNoisy)


def test_profiles_of_two_machines(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    for name in ("slow", "fast"):
        device = describe(detect_host()).model_copy(update={"name": name})
        write_whole(tmp_path / "home/devices" / f"{name}.toml", toml_text(device))
    targets = [f"{name}/onnxruntime-cpu-fp32" for name in ("slow", "fast")]
    machines = {"slow": Named("slow", 2.0), "fast": Named("fast", 1.0)}
    answers, failed = workflows.profile_all(
        space,
        targets,
        machines=machines,
        tables=tmp_path / "tables",
        networks=6,
        bound_networks=5,
    )
    assert not failed
    assert [answer.target for answer in answers] == targets
    slow, fast = (read_table(resolve_target(a.target), Path(a.table), space=space) for a in answers)
    for key, row in fast.rows.items():
        assert slow.rows[key].latency_ms_p25 == pytest.approx(2 * row.latency_ms_p25, rel=0.02)
    checked, failed = workflows.validate_all(space, targets, machines=machines, tables=tmp_path / "tables", networks=6)
    assert not failed
    assert [answer.target for answer in checked] == targets
    assert all(answer.mape < 0.05 for answer in checked)
    with pytest.raises(InvalidValue, match="listed twice"):
        workflows.profile_all(space, [targets[0], targets[0]])
