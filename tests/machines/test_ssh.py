"""Another machine over SSH: this machine's loopback interface, with a Python that has no torch."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwnas import workflows
from hwnas.errors import HwnasError, MachineError, TableError
from hwnas.files import write_whole
from hwnas.files.spec import toml_text
from hwnas.latency import load_model, read_table
from hwnas.latency.kernels.table import read_kernels
from hwnas.machines import LocalMachine, machine_of
from hwnas.machines.connection import Connection
from hwnas.machines.connections import machine_named, save_connection
from hwnas.machines.remote import RemoteMachine
from hwnas.models.prior import random_network
from hwnas.pipeline import compile_job, read_job
from hwnas.spaces import Domain, Space
from hwnas.targets import detect_host, resolve_target
from hwnas.targets.device import describe
from hwnas.timing import Protocol, Protocols

TARGET = "board/onnxruntime-cpu-fp32"
SHORT = Protocol(visit_ms=0.2, session_passes=2, max_sessions=2, max_disagreement=1e3)
PROTOCOLS = Protocols(ops=SHORT, networks=SHORT)


@pytest.fixture
def board(
    on_path: Any, bare_python: Path, tmp_path: Path, lowered: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RemoteMachine]:
    """The connection and the device `board`: this machine, over SSH."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "lowered").symlink_to(lowered)
    monkeypatch.setenv("HWNAS_HOME", str(home))
    save_connection("board", Connection(ssh="board", python=f"{bare_python}"))
    device = describe(detect_host()).model_copy(update={"name": "board"})
    write_whole(home / "devices" / "board.toml", toml_text(device))
    yield machine_named("board")


def test_the_machine_reports_itself(board: RemoteMachine) -> None:
    host, here = board.host(), detect_host()
    assert (host.cpu, host.cores, host.flags, host.memory_gib) == (here.cpu, here.cores, here.flags, here.memory_gib)
    target = resolve_target(TARGET)
    assert board.versions(target) == LocalMachine().versions(target)
    assert board.cores(target.recipe) == LocalMachine().cores(target.recipe)
    assert isinstance(machine_of(target), RemoteMachine)
    assert isinstance(machine_of(resolve_target("this/onnxruntime-cpu-fp32")), LocalMachine)


def test_torch_is_not_there(board: RemoteMachine, on_path: Any, bare_python: Path) -> None:
    command = ["ssh", "board", f"{bare_python} -c 'import torch'"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No module named 'torch'" in done.stderr


def test_profile_validate_and_predict(board: RemoteMachine, space: Space, tmp_path: Path) -> None:
    counts = {"networks": 6, "bound_networks": 5}
    answer = workflows.profile(space, TARGET, tables=tmp_path / "tables", protocols=PROTOCOLS, **counts)  # type: ignore[arg-type]
    assert answer.target == TARGET
    table = read_table(resolve_target(TARGET), Path(answer.table), space=space)
    assert sorted(table.rows) == sorted(op.key for op in space.distinct_ops)
    assert table.manifest.versions["onnxruntime"] == LocalMachine().versions(resolve_target(TARGET))["onnxruntime"]
    assert (load_model(table, space).predict(space.encode([space.largest])) > 0).all()
    report = workflows.validate(space, TARGET, tables=tmp_path / "tables", networks=4, protocols=PROTOCOLS)
    assert report.networks == 4
    assert not list((tmp_path / "tables").rglob("*connection*"))
    assert "ssh" not in Path(answer.table).with_suffix(".toml").read_text()  # the connection is in no table


def test_kernels_are_measured_there_and_predicted_without_it(
    board: RemoteMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is of networks that were timed over SSH; a prediction connects to nothing."""
    monkeypatch.setattr("hwnas.profiling.kernels.TOGETHER", 2)
    answer = workflows.profile_kernels(TARGET, minutes=0.001, tables=tmp_path / "tables", protocol=SHORT)
    assert answer.target == TARGET
    table = read_kernels(Path(answer.table), resolve_target(TARGET))
    assert any("activation=Relu" in row.kernel for row in table.rows)
    monkeypatch.setenv("PATH", "/nowhere")
    path = tmp_path / "model.onnx"
    path.write_bytes(random_network(1, 0).SerializeToString())
    found = workflows.predict(path, TARGET, tables=tmp_path / "tables")
    assert found.target == TARGET
    assert found.predicted_ms > 0


def test_layers_need_the_protobuf_of_onnx_runtime(board: RemoteMachine, bare_python: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(random_network(1, 0).SerializeToString())
    recipe = resolve_target(TARGET).recipe
    google = next(bare_python.parents[1].glob("lib/python3*/site-packages")) / "google"
    google.rename(google.with_name("gone"))
    try:
        with pytest.raises(HwnasError, match=r"the times of layers need protobuf .*pip install -U protobuf"):
            board.layers({"a": path}, recipe, runs=1)
    finally:
        google.with_name("gone").rename(google)
    assert board.layers({"a": path}, recipe, runs=1)["a"].layers


def test_another_device_than_the_target_names(board: RemoteMachine, space: Space, tmp_path: Path) -> None:
    host = detect_host()
    other = describe(host).model_copy(update={"name": "board"})
    other = other.model_copy(update={"match": other.match.model_copy(update={"cores": host.cores + 1})})
    write_whole(tmp_path / "home/devices/board.toml", toml_text(other))
    with pytest.raises(TableError, match=r"at the end of the connection board \(ssh board\) is not the device board"):
        workflows.profile(space, TARGET, tables=tmp_path / "tables", protocols=PROTOCOLS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ssh": "no-such-host.invalid"}, "Could not resolve hostname.*Check the host's name"),
        ({"ssh": "nobody@board"}, r"Permission denied.*ssh-copy-id nobody@board"),
    ],
)
def test_hosts_that_cannot_be_reached(board: RemoteMachine, config: dict[str, str], message: str) -> None:
    with pytest.raises(MachineError, match=message):
        RemoteMachine("x", Connection(**config)).host()


def test_a_changed_host_key(board: RemoteMachine, on_path: Any) -> None:
    known = on_path.client / "known_hosts"
    before = known.read_text()
    key = before.split()[2]
    known.write_text(before.replace(key, key[:-10] + "A" * 10))
    try:
        with pytest.raises(MachineError, match=r"while connecting: .*does not skip this check.*ssh-keygen -R"):
            board.connection.start("board")
        known.write_text("")
        with pytest.raises(MachineError, match=r"Host key verification failed"):
            board.connection.start("board")
    finally:
        known.write_text(before)


def test_a_port_without_a_server(board: RemoteMachine, on_path: Any) -> None:
    config = on_path.client / "config"
    before = config.read_text()
    config.write_text(before.replace(f"Port {on_path.port}", "Port 1"))
    try:
        with pytest.raises(MachineError, match=r"Connection refused.*Is an SSH server running"):
            board.connection.start("board")
    finally:
        config.write_text(before)


def test_devices_from_the_command_line(
    on_path: Any, bare_python: Path, hwnas_cli: Callable[..., Any], tmp_path: Path
) -> None:
    added = hwnas_cli("devices", "connect", "pi5", "--ssh", "board", "--python", bare_python)
    assert added.code == 0, added
    assert "hwnas devices detect --on pi5 --save" in added.out
    detected = hwnas_cli("devices", "detect", "--on", "pi5", "--save")
    assert detected.code == 0, detected
    assert 'name = "pi5"' in detected.out
    assert json.loads(hwnas_cli("devices", "connections", "--json").out)["pi5"]["ssh"] == "board"
    assert hwnas_cli("devices", "show", "this").out.count("pi5") == 0  # the device of a connection is not this host
    assert hwnas_cli("devices", "disconnect", "pi5").code == 0
    gone = hwnas_cli("devices", "detect", "--on", "pi5")
    assert gone.code == 2
    assert "unknown connection 'pi5'" in gone.err


@pytest.mark.long
def test_twenty_kills_during_a_profile(
    board: RemoteMachine, space: Space, tmp_path: Path, hwnas_command: list[str], bare_python: Path, on_path: Any
) -> None:
    """SSH's client, the runner and the driver are killed at random: in the end one whole table, each op once."""
    fixed = [f"--fix={name}={','.join(map(str, values))}" for name, values in Domain.of(space).choices.items()]
    words = ["profile", "--space", space.name, *fixed, "--target", TARGET, "--networks", "6", "--bound-networks", "5"]
    path = tmp_path / f"home/latency_tables/{TARGET}.csv"
    rng, kills = random.Random(0), 0
    while kills < 20:  # a fast machine ends a profile before it was killed so often: it profiles again
        path.unlink(missing_ok=True)
        driver = subprocess.Popen(
            [*hwnas_command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while driver.poll() is None and kills < 20:
            time.sleep(rng.uniform(0.2, 1.0))
            # The runner's command line begins with its Python, the client's with its configuration.
            what = rng.choice([str(bare_python), f"ssh -F {on_path.client}", "driver", "driver"])
            if what != "driver":
                kills += killed(what)
            elif rng.random() < 0.3:
                driver.kill()
                kills += 1
                break
        _, said = driver.communicate()
        # A kill before the first timing is said; one later is not even noticed.
        assert driver.returncode in (0, -9) or any(words in said for words in ("code -9", "code 137", "Killed")), said
    subprocess.run([*hwnas_command, *words], check=True, capture_output=True)
    table = read_table(resolve_target(TARGET), path, space=space)
    assert sorted(table.rows) == sorted(op.key for op in space.distinct_ops)
    assert not list((tmp_path / "home/latency_tables").rglob("*.journals"))


def killed(what: str) -> int:
    """Kill one process of the tests' server or client whose command line has these words; how many were killed."""
    found = subprocess.run(["pgrep", "-f", what], capture_output=True, text=True, check=False).stdout.split()
    for number in found[:1]:
        subprocess.run(["kill", "-9", number], check=False)
    return len(found[:1])


JOB = """
schema = 1
targets = ["board/onnxruntime-cpu-fp32"]
budget = "200%"
seed = 3

[space]
name = "mobilenetv3-tiny"
fix = { resolution = [24], depth_1 = 1, depth_2 = 1, depth_3 = 1, kernel_1_1 = 3, kernel_2_1 = [3, 5], kernel_3_1 = 3 }

[data]
name = "cluttered-digits"

[latency]
calibration_networks = 8
bound_networks = 3
validation_networks = 4

[training]
batch_size = 16
random_subnets = 1
phases = [{ name = "all", steps = 12, learning_rate = 0.2 }]

[accuracy]
subnets = 20
images = 100
calibration_images = 100

[search]
candidates = 2
random_networks = 2
confidence = 0.5
"""


@pytest.mark.long
def test_a_job_for_another_machine(board: RemoteMachine, tmp_path: Path) -> None:
    """Training is here, timing there; the bundle is timed there again."""
    (tmp_path / "job.toml").write_text(JOB)
    report = compile_job(read_job(tmp_path / "job.toml"), tmp_path / "out")
    [answer] = report["targets"].values()
    assert answer["target"] == TARGET
    bundle = tmp_path / "out" / answer["bundle"]
    assert len(json.loads((bundle / "manifest.json").read_text())["references"]) == 3
    timed = workflows.bench(bundle, target=TARGET, protocol=SHORT)
    assert timed.target == TARGET
    assert timed.speed is not None
    assert timed.relative_error is not None
    swept = workflows.sweep(
        tmp_path / "out" / "report.json",
        next((tmp_path / "out/stages").glob("train-*")),
        device="board",
        recipes=["onnxruntime-cpu-fp32", "torch-cpu-fp32"],
        images=100,
        max_drop=1.0,
        protocol=SHORT,
    )
    assert swept.picked == TARGET
    assert "not timed on other machines" in swept.left_out["board/torch-cpu-fp32"]
