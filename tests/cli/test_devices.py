from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from boards import BOARDS, write_board
from typer.testing import CliRunner, Result

from hwnas.cli import devices
from hwnas.errors import HwnasError, InvalidValue, OutputError, RuntimeUnavailable, UnknownName
from hwnas.files import read_spec, toml_text
from hwnas.targets import Device, Host, Quota, Topology, catalog, describe, read_host
from hwnas.targets.topology import Core
from hwnas.timing.peaks import Peaks

HOST = Host(architecture="x86_64", cpu_name="Test CPU 9", flags=("avx", "avx2"), cores=2)
NAME = "test-9-2c"
NAMES = "a name consists of a-z, 0-9, '.' and '-', and starts with a letter or a digit"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a host that no shipped device is."""
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(catalog, "detect_host", lambda: HOST)
    monkeypatch.setattr(devices, "detect_host", lambda: HOST)
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(devices.app, list(arguments))


def error(*arguments: str) -> HwnasError:
    result = run(*arguments)
    assert isinstance(result.exception, HwnasError), result.output
    return result.exception


def test_list_says_when_no_device_is_this_host() -> None:
    result = run("list")
    assert result.exit_code == 0
    assert "amd-epyc-f25m17-2c" in result.stdout
    assert "None of them is this host; `hwnas devices detect --save` adds it." in result.stdout


def test_list_marks_this_host(home: Path) -> None:
    assert run("detect", "--save").exit_code == 0
    assert "None of them" not in run("list").stdout
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows[NAME] == {
        "name": NAME,
        "kind": "cpu",
        "description": "Test CPU 9, 2 logical cores, as detected",
        "file": str(home / "devices" / f"{NAME}.toml"),
        "this_host": True,
    }
    assert rows["amd-epyc-f25m17-2c"]["this_host"] is False


def test_show(tmp_path: Path) -> None:
    result = run("show", "amd-epyc-f25m17-2c")
    (tmp_path / "shown.toml").write_text(result.stdout)
    assert read_spec(tmp_path / "shown.toml", Device) == catalog.load_device("amd-epyc-f25m17-2c")
    shown = json.loads(run("show", "this", "--json").stdout)
    assert (shown["schema"], shown["name"], shown["match"]["cores"]) == (1, NAME, 2)


def test_show_this_prints_the_topology(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    performance = [Core(number=n, physical=n - n % 2, cache=0) for n in range(4)]
    efficiency = [Core(number=n, physical=n, cache=4, kind=1) for n in (4, 5)]
    hybrid = Topology(cores=(*performance, *efficiency), kinds=("performance", "efficiency"))
    monkeypatch.setattr(devices, "read_topology", lambda: hybrid)
    monkeypatch.setattr(devices, "allowed_cores", lambda: frozenset({0, 1, 3, 4, 5}))
    monkeypatch.setattr(devices, "cpu_quota", lambda: Quota(cores=1.5, source="/sys/fs/cgroup/cpu.max"))
    state = {"scaling_governor": "schedutil", "temperatures_c": "cpu-thermal 61.3", "throttling": "none"}
    monkeypatch.setattr(devices, "cpu_state", lambda *, core: state | {"scaling_cur_freq": f"{core}00000"})
    shown = run("show", "this").stdout
    assert [line for line in shown.splitlines() if line.startswith("#")] == [
        "# topology: 1 package(s), 4 physical cores, logical cores 0-5",
        "# logical cores of each physical core: 0-1 | 2-3 | 4 | 5",
        "# kind of core: performance: 0-3",
        "# kind of core: efficiency: 4-5",
        "# last-level caches: 0-3 | 4-5",
        "# affinity: this process may run on 0-1,3-5",
        "# quota of CPU time: 1.5 cores (/sys/fs/cgroup/cpu.max)",
        "# 1 thread(s) are timed on 3",
        "# 2 thread(s) are timed on 1,3",
        "# governor: schedutil",
        "# clock in kHz: 300000",  # of core 3
        "# temperatures in °C: cpu-thermal 61.3",
        "# throttling: none",
    ]
    (tmp_path / f"{NAME}.toml").write_text(shown)
    assert read_spec(tmp_path / f"{NAME}.toml", Device).name == NAME  # it stays a device's file
    host = json.loads(run("show", "this", "--json").stdout)["host"]
    assert (host["topology"], host["quota_cores"], host["allowed"]) == (hybrid.document(), 1.5, "0-1,3-5")
    assert host["timed_on"][1] == {"threads": 2, "cores": "1,3", "note": ""}


def test_show_this_where_the_system_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "read_topology", Topology)
    monkeypatch.setattr(devices, "allowed_cores", frozenset)
    monkeypatch.setattr(devices, "cpu_quota", lambda: None)
    monkeypatch.setattr(devices, "cpu_state", lambda *, core: {})
    assert [line for line in run("show", "this").stdout.splitlines() if line.startswith("#")] == [
        "# topology: not reported by this system",
        "# affinity: this process may run on all cores; this system cannot pin",
        "# quota of CPU time: none",
    ]


def test_detect_prints_and_writes_nothing(home: Path) -> None:
    result = run("detect")
    assert result.exit_code == 0
    assert result.stdout == toml_text(describe(HOST))
    assert not home.exists()
    assert json.loads(run("detect", "--json").stdout)["file"] is None


@pytest.mark.parametrize("board", BOARDS)
def test_detect_and_check_boards(board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = read_host(write_board(board, tmp_path), architecture="aarch64", allowed=range(4))
    monkeypatch.setattr(catalog, "detect_host", lambda: host)
    monkeypatch.setattr(devices, "detect_host", lambda: host)
    name = describe(host).name if host.recognisable else "my-mac"
    assert run("detect", "--save", *([] if host.recognisable else ["--name", name])).exit_code == 0
    assert run("check", "this").stdout == f"This host is {name}.\n"
    assert run("check", name).exit_code == 0
    monkeypatch.setattr(devices, "detect_host", lambda: HOST)
    assert run("check", name).exit_code == 1


def test_detect_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(error("detect", "--kind", "gpu"), RuntimeUnavailable)
    monkeypatch.setattr(devices, "detect_host", lambda: replace(HOST, gpus=("NVIDIA H200",)))
    found = json.loads(run("detect", "--kind", "gpu", "--json").stdout)["device"]
    assert (found["name"], found["kind"], found["match"]) == ("nvidia-h200", "gpu", {"flags": [], "gpu": "NVIDIA H200"})
    assert str(error("detect", "--kind", "tpu")) == "--kind is 'tpu'; it should be one of: cpu, gpu"


def test_detect_save_can_be_repeated_and_spares_a_different_file(home: Path) -> None:
    path = home / "devices" / f"{NAME}.toml"
    first = run("detect", "--save")
    assert f"wrote {path}" in first.stderr
    assert first.stdout == path.read_text()
    assert run("detect", "--save").exit_code == 0
    edited = path.read_text().replace("as detected", "on my desk")
    path.write_text(edited)
    refused = error("detect", "--save")
    assert isinstance(refused, OutputError)
    assert str(refused) == f"{path} exists with another content; --force overwrites it, another --out keeps both"
    assert path.read_text() == edited
    assert json.loads(run("detect", "--save", "--force", "--json").stdout)["file"] == str(path)
    assert read_spec(path, Device) == describe(HOST)


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes each measurement from then on find this peak of arithmetic."""

    def found(gflops: float) -> None:
        figures = Peaks(fp32_gflops=gflops, memory_gb_per_s=20.0, how="made up")
        monkeypatch.setattr("hwnas.timing.peaks.measure_peaks", lambda *_, **__: figures)

    return found


def test_measured_peaks_are_added_to_what_is_saved(home: Path, peaks: Callable[[float], None]) -> None:
    path = home / "devices" / f"{NAME}.toml"
    peaks(100.0)
    for measure in (False, True, False):  # what was measured is kept
        assert run("detect", "--save", *(["--measure-peaks"] if measure else [])).exit_code == 0
    hardware = read_spec(path, Device).hardware
    assert (hardware.peak_fp32_gflops, hardware.peak_memory_gb_per_s) == (100.0, 20.0)
    assert hardware.source == (
        describe(HOST).hardware.source + "; the peaks are measured on it, not the maker's: made up"
    )
    assert catalog.this_device() == read_spec(path, Device)
    peaks(90.0)  # and replaced by what is measured later
    assert run("detect", "--measure-peaks", "--save").exit_code == 0
    assert read_spec(path, Device).hardware.peak_fp32_gflops == 90.0
    path.write_text(path.read_text().replace("as detected", "on my desk"))
    assert isinstance(error("detect", "--measure-peaks", "--save"), OutputError)
    (home / "other.toml").write_text("nonsense")
    assert isinstance(error("detect", "--measure-peaks", "--out", str(home / "other.toml")), OutputError)


def test_measured_peaks_are_printed_and_belong_to_the_cpu(home: Path, peaks: Callable[[float], None]) -> None:
    peaks(100.0)
    found = json.loads(run("detect", "--measure-peaks", "--json").stdout)["device"]
    assert found["hardware"]["peak_fp32_gflops"] == 100.0
    assert not home.exists()
    refused = error("detect", "--measure-peaks", "--kind", "gpu")
    assert str(refused) == "--measure-peaks measures the CPU, but --kind is 'gpu'; omit one of them"


def test_detect_out_names_the_device_after_the_file(tmp_path: Path) -> None:
    assert run("detect", "--out", str(tmp_path / "my-board.toml")).exit_code == 0
    assert read_spec(tmp_path / "my-board.toml", Device).name == "my-board"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--save", "--out", "x.toml"], "use --save or --out, not both (--out is 'x.toml')"),
        (["--out", "x.txt"], f"--out is 'x.txt'; it should be a file that ends in .toml, e.g. {NAME}.toml"),
        (["--out", "My Board.toml"], f"--out is 'My Board.toml'; {NAMES}"),
    ],
)
def test_detect_with_wrong_options(arguments: list[str], said: str) -> None:
    refused = error("detect", *arguments)
    assert isinstance(refused, InvalidValue)
    assert str(refused) == said


def test_detect_into_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = error("detect", "--out", str(tmp_path / "file" / "x.toml"))
    assert isinstance(refused, OutputError)
    assert f"{tmp_path / 'file'} is a file, not a folder" in str(refused)


def test_check_this_host() -> None:
    result = run("check", "this")
    assert (result.exit_code, result.stdout) == (0, f"This host is {NAME}.\n")
    assert json.loads(run("check", "this", "--json").stdout) == {
        "device": NAME,
        "this_host": True,
        "differences": [],
    }


def test_check_another_device() -> None:
    result = run("check", "amd-epyc-f25m17-2c")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "This host is not amd-epyc-f25m17-2c:"
    assert lines[1] == "  CPU: expected 'AMD EPYC family 25 model 17', found 'Test CPU 9'"
    as_json = run("check", "amd-epyc-f25m17-2c", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["differences"] == [line.strip() for line in lines[1:]]


@pytest.mark.parametrize("verb", ["show", "check"])
def test_unknown_names(verb: str) -> None:
    refused = error(verb, "amd-epic-f25m17-2c")
    assert isinstance(refused, UnknownName)
    assert "unknown device 'amd-epic-f25m17-2c'. Did you mean 'amd-epyc-f25m17-2c'? Known: " in str(refused)


APPLE = Host(architecture="aarch64", cpu_name="Arm implementer 0x61 part 0x000", flags=("asimd",), cores=4)


def test_what_nothing_tells_apart_needs_a_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "detect_host", lambda: APPLE)
    monkeypatch.setattr(devices, "detect_host", lambda: APPLE)
    shown = run("detect")
    assert shown.exit_code == 0
    assert "hwnas devices detect --save --name my-machine" in shown.stderr
    assert "give it a name, e.g. --save --name my-machine" in str(error("detect", "--save"))
    assert isinstance(error("check", "this"), InvalidValue)
    assert run("list").exit_code == 0
    assert not home.exists()
    saved = run("detect", "--save", "--name", "my-mac")
    assert (saved.exit_code, "warning" in saved.stderr) == (0, False)
    assert (home / "devices" / "my-mac.toml").is_file()
    assert run("check", "this").stdout == "This host is my-mac.\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "My Mac"], f"--name is 'My Mac'; {NAMES}"),
        (["--name", "a", "--out", "b.toml"], "use --name or --out, not both (--out is 'b.toml')"),
    ],
)
def test_names_of_ones_own(arguments: list[str], said: str) -> None:
    assert str(error("detect", *arguments)) == said


def test_a_broken_file_does_not_hide_the_other_devices(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    (home / "devices").mkdir(parents=True)
    (home / "devices" / "broken.toml").write_text("name = 3", encoding="utf-8")
    listed = run("list")
    assert listed.exit_code == 0
    assert "amd-epyc-f25m17-2c" in listed.stdout
    assert "broken.toml" in caplog.text
