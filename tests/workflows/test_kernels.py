"""From the measurement of kernels to the prediction of a model, on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hwnas import workflows
from hwnas.errors import InvalidValue, RuntimeUnavailable, TableError, TooNoisy
from hwnas.latency.kernels import kernel_path, read_kernels
from hwnas.machines import LocalMachine
from hwnas.models.prior import random_network
from hwnas.models.prior.references import reference_networks
from hwnas.profiling import kernels
from hwnas.profiling.kernels import Profiled, added_by_profiler, tabulated
from hwnas.targets import Recipe, Target
from hwnas.timing import Measurement, Protocol

QUICK = Protocol(
    visit_ms=0.1, min_runs=1, max_runs=1, warmup_runs=0, session_passes=2, max_sessions=2, max_disagreement=1e3
)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Batches of four small networks beside one reference, as they need minutes otherwise."""
    references = {"reference tokens": reference_networks()["reference tokens"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "TOGETHER", 4)
        patch.setattr(kernels, "reference_networks", lambda: references)
        patch.setattr("hwnas.models.prior.MOST_MACS", 5e6)
        yield


@pytest.fixture(scope="module")
def tables(this: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of kernels of this machine, and of a model's."""
    folder = tmp_path_factory.mktemp("kernels")
    onnx.save(random_network(5, 1), folder / "known.onnx")
    answer = workflows.profile_kernels(
        this, like=[folder / "known.onnx"], minutes=0.01, tables=folder, protocol=QUICK, progress=lambda *_, **__: None
    )
    assert answer.networks in (1, 1 + 4)
    assert answer.kernels > 10
    assert kernel_path(folder, this) == Path(answer.table)
    return folder


def test_the_table_has_the_kernels_of_the_model(tables: Path, this: Target) -> None:
    table = read_kernels(kernel_path(tables, this), this)
    assert table.networks[0].name == "like known"
    assert table.versions["onnxruntime"]
    assert table.host["cpu"]
    for network in table.networks:  # times of layers are scaled to the latency, up to medians of equal kernels
        assert sum(table.rows[i].ms for i in network.kernels) == pytest.approx(network.ms, rel=0.5)
    assert not list(tables.rglob("*journals*"))


def test_a_model_with_measured_kernels(tables: Path, this: Target) -> None:
    answer = workflows.predict(tables / "known.onnx", this, tables=tables)
    assert answer.shares["measured"] > 0.95
    assert answer.predicted_ms == pytest.approx(sum(one.ms for one in answer.kernels) + answer.between_ms)
    assert sum(one.share for one in answer.kernels) == pytest.approx(1 - answer.between_ms / answer.predicted_ms)
    assert answer.upper_ms is None
    assert any("too few for a bound" in note for note in answer.notes)


def test_a_model_with_other_kernels(tables: Path, this: Target, tmp_path: Path) -> None:
    onnx.save(random_network(5, 11), tmp_path / "other.onnx")
    answer = workflows.predict(tmp_path / "other.onnx", this, tables=tables)
    assert answer.shares["measured"] < 0.9
    assert all(one.ms > 0 for one in answer.kernels)


def test_the_command_line(tables: Path, this: Target, hwnas_cli: Any) -> None:
    words = ("predict", tables / "known.onnx", "--target", this.name, "--tables", tables)
    ran = hwnas_cli(*words)
    assert ran.code == 0
    assert f"known on {this.name}: " in ran.out
    assert "between kernels" in ran.out
    ran = hwnas_cli(*words, "--json")
    assert json.loads(ran.out)["predicted_ms"] > 0


def test_validation(tables: Path, this: Target) -> None:
    answer = workflows.validate_kernels(this, networks=3, seed=4, tables=tables, protocol=QUICK)
    assert answer.networks == 3
    assert 0.05 < answer.speed < 20
    assert answer.mape > 0
    assert answer.noise_floor > 0


def test_validation_needs_the_same_reference_networks(tables: Path, this: Target, tmp_path: Path) -> None:
    """Those of another version tell nothing about the machine's speed; the table still predicts."""
    path = kernel_path(tables, this)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["references"] = {f"older {name}": ms for name, ms in document["references"].items()}
    (other := kernel_path(tmp_path, this)).parent.mkdir(parents=True)
    other.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TableError, match="measured beside other reference networks"):
        workflows.validate_kernels(this, networks=3, tables=tmp_path, protocol=QUICK)
    assert workflows.predict(tables / "known.onnx", this, tables=tmp_path).predicted_ms > 0


class Stopping(LocalMachine):
    """Stops when it is asked for a second batch; counts the batches."""

    def __init__(self, most: int) -> None:
        self.batches, self.most = 0, most

    def layers(self, programs: Mapping[str, Path], recipe: Recipe, *given: Any, **options: Any) -> Any:
        if self.batches == self.most:
            raise KeyboardInterrupt
        self.batches += 1
        return super().layers(programs, recipe, *given, **options)


@pytest.mark.long
def test_a_killed_profile_resumes(this: Target, tmp_path: Path) -> None:
    clock = iter(float(i) for i in range(10_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "monotonic", lambda: 10.0 * next(clock))  # 10 s a batch: a fourth one would end too late
        first, second = Stopping(1), Stopping(9)
        given: dict[str, Any] = {"journals": tmp_path, "seconds": 34.0, "protocol": QUICK}
        with pytest.raises(KeyboardInterrupt):
            kernels.profile_kernels(this, machine=first, **given)
        table = kernels.profile_kernels(this, machine=second, **given)
    assert first.batches == 1
    assert second.batches == 2
    assert [one.name for one in table.networks] == [f"prior {i}" for i in range(12)]


def test_a_machine_that_is_too_noisy(this: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    even_and_odd = property(lambda measured: np.array([[1.0], [2.0]]) * np.ones((2, len(measured.samples_ms))))
    monkeypatch.setattr(Measurement, "halves_ms", even_and_odd)
    calm = Protocol(visit_ms=0.1, min_runs=1, max_runs=1, warmup_runs=0, session_passes=1, max_sessions=2)
    with pytest.raises(TooNoisy, match="for 5 of 5 networks"):
        kernels.profile_kernels(this, journals=tmp_path, seconds=1, protocol=calm)


def test_the_cost_of_the_profiler_is_found_and_removed() -> None:
    from hwnas.latency.kernels import Kernel

    rng, cost = np.random.default_rng(0), 0.004
    found = []
    for i in range(50):
        own = {Kernel("A", ((n,),), ((n,),)): n / 1e3 for n in rng.integers(1, 500, 20).tolist()}
        layers = tuple((kernel, ms + cost) for kernel, ms in own.items())
        found.append(Profiled(name=str(i), ms=sum(own.values()), layers=layers))
    assert added_by_profiler(found) == pytest.approx(cost, rel=0.02)
    rows, networks = tabulated(found, cost)
    for row in rows:
        size = int(row.kernel.split()[1])
        assert row.ms == pytest.approx(max(size / 1e3, (size / 1e3 + cost) * 0.1), rel=0.02)
    assert len(networks) == 50


def test_slow_batches_are_told_from_slow_networks() -> None:
    slow = [1.0, 1.4, 1.0, 1.2]
    own = {"a": 5.0, "b": 20.0, "c": 1.0}
    measured = [{name: ms * slow[i] for name, ms in own.items() if (i, name) != (1, "b")} for i in range(4)]
    slowdowns, references = kernels._slowdowns(measured)
    assert slowdowns == pytest.approx(slow, rel=1e-6)
    assert references == pytest.approx(own, rel=1e-6)


@pytest.mark.parametrize("minutes", [0, -1, 10_000, float("nan")])
def test_an_impossible_time(this: Target, minutes: float) -> None:
    with pytest.raises(InvalidValue, match="the time for measuring"):
        workflows.profile_kernels(this, minutes=minutes)


def test_a_runtime_without_layers(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="for other models use recipes of onnxruntime or openvino"):
        workflows.profile_kernels("this/torch-cpu-fp32", tables=tmp_path)


def test_no_table(this: Target, tmp_path: Path) -> None:
    onnx.save(random_network(5, 1), tmp_path / "net.onnx")
    with pytest.raises(TableError, match=r"there is no table of kernels .* hwnas profile --kernels --target"):
        workflows.predict(tmp_path / "net.onnx", this, tables=tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("profile", "--target", "this/onnxruntime-cpu-fp32"), "--space is missing"),
        (("profile", "--kernels", "--space", "x", "--target", "a/b"), "--space: these are for a space"),
        (("profile", "--kernels", "--fix", "a=1", "--target", "a/b"), "--fix: these are for a space"),
        (("profile", "--space", "mobilenetv3-tiny", "--minutes", "1", "--target", "a/b"), "--minutes is for --kernels"),
        (("validate", "--kernels", "--width", "1", "--target", "a/b"), "--width: these are for a space"),
    ],
)
def test_options_that_do_not_go_together(hwnas_cli: Any, words: tuple[str, ...], said: str) -> None:
    ran = hwnas_cli(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
