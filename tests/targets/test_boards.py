"""Boards, servers and virtual machines with Arm and RISC-V CPUs, from their /proc and /sys."""

from __future__ import annotations

import platform
from pathlib import Path, PurePath
from typing import NamedTuple

import pytest
from boards import BOARDS, copy_snapshot, write_board

from hwnas.affinity import allowed_cores
from hwnas.files import read_spec, toml_text
from hwnas.targets import (
    SNAPSHOT,
    Device,
    Host,
    choose_cores,
    cpu_quota,
    cpu_state,
    describe,
    detect_host,
    read_host,
    read_topology,
    slowed_by,
)
from hwnas.targets.device import former_name


class Board(NamedTuple):
    """What hwnas makes of a board: name and description, kinds of cores, and the cores by number of threads."""

    architecture: str
    name: str
    described: str
    core: str | None
    flags: tuple[str, ...]
    kinds: dict[str, str]
    chosen: dict[int, str]


A8, A82, A7 = ("asimd",), ("asimd", "asimdhp", "asimddp"), ("neon", "vfpv4")
FOUR = {1: "3", 2: "2-3", 4: "0-3"}
EXPECTED = {
    "raspberry-pi-3": Board(
        *("aarch64", "raspberry-pi-3-model-b-rev-1.2-4c", "Raspberry Pi 3 Model B Rev 1.2, Cortex-A53", "0xd03 r0p4"),
        *(A8, {"Cortex-A53": "0-3"}, FOUR),
    ),
    "raspberry-pi-3-32-bit": Board(
        *("armv7l", "raspberry-pi-3-model-b-rev-1.2-armv7l-4c", "Raspberry Pi 3 Model B Rev 1.2, Cortex-A53"),
        *("0xd03 r0p4", A7, {"Cortex-A53": "0-3"}, FOUR),
    ),
    "raspberry-pi-4": Board(
        *("aarch64", "raspberry-pi-4-model-b-rev-1.4-4c", "Raspberry Pi 4 Model B Rev 1.4, Cortex-A72", "0xd08 r0p3"),
        *(A8, {"Cortex-A72": "0-3"}, FOUR),
    ),
    "raspberry-pi-5": Board(
        *("aarch64", "raspberry-pi-5-model-b-rev-1.0-4c", "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76", "0xd0b r4p1"),
        *(A82, {"Cortex-A76": "0-3"}, FOUR),
    ),
    "ampere-altra": Board(
        *("aarch64", "gigabyte-r152-p30-00-neoverse-n1-32c", "GIGABYTE R152-P30-00, Neoverse-N1", "0xd0c r3p1"),
        *(A82, {"Neoverse-N1": "0-31"}, {1: "31", 2: "30-31", 4: "28-31"}),
    ),
    "apple-virtual-machine": Board(
        *("aarch64", "apple-silicon-4c", "Apple silicon", None, A82, {"Apple silicon": "0-3"}, FOUR),
    ),
    "rock-5b": Board(  # cores 4-5 and 6-7 differ by 2%: one kind
        *("aarch64", "radxa-rock-5b-8c", "Radxa ROCK 5B, Cortex-A55 + Cortex-A76", "0xd05 r2p0, 0xd0b r4p0", A82),
        *({"Cortex-A76, capacity 1024": "4-7", "Cortex-A55, capacity 414": "0-3"}, {1: "7", 2: "6-7", 4: "4-7"}),
    ),
    "odroid-n2": Board(  # no capacity is reported, and the little cores have the higher clock
        *("aarch64", "hardkernel-odroid-n2-6c", "Hardkernel ODROID-N2, Cortex-A53 + Cortex-A73"),
        *("0xd03 r0p4, 0xd09 r0p2", A8, {"Cortex-A73": "2-5", "Cortex-A53": "0-1"}, {1: "5", 2: "4-5", 4: "2-5"}),
    ),
    "odroid-xu4": Board(
        *("armv7l", "hardkernel-odroid-xu4-armv7l-8c", "Hardkernel Odroid XU4, Cortex-A7 + Cortex-A15"),
        *("0xc07 r0p3, 0xc0f r2p3", A7, {"Cortex-A15, 2.00 GHz": "4-7", "Cortex-A7, 1.40 GHz": "0-3"}),
        {1: "7", 2: "6-7", 4: "4-7"},
    ),
    "visionfive-2": Board(
        *("riscv64", "starfive-visionfive-2-v1.3b-4c", "StarFive VisionFive 2 v1.3B"),
        "sifive,u74-mc mvendorid 0x489 marchid 0x8000000000000007 mimpid 0x4210427 rv64imafdc",
        *((), {"sifive,u74-mc": "0-3"}, FOUR),
    ),
    "banana-pi-f3": Board(
        *("riscv64", "banana-pi-bpi-f3-8c", "Banana Pi BPI-F3"),
        "mvendorid 0x710 marchid 0x8000000058000001 mimpid 0x1000000049772200 rv64imafdcv",
        *(("v", "zvfh"), {"Spacemit(R) X60": "0-7"}, {1: "7", 2: "6-7", 4: "4-7"}),
    ),
}


def host_of(name: str, root: Path) -> Host:
    cores = len(range(int(EXPECTED[name].name.rsplit("-", 1)[1][:-1])))
    return read_host(write_board(name, root), architecture=EXPECTED[name].architecture, allowed=range(cores))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Host]:
    return {name: host_of(name, tmp_path_factory.mktemp(name)) for name in BOARDS}


def test_every_board_is_expected() -> None:
    assert sorted(EXPECTED) == BOARDS


@pytest.mark.parametrize("name", BOARDS)
def test_the_device_of_a_board(name: str, tmp_path: Path, hosts: dict[str, Host]) -> None:
    expected, device = EXPECTED[name], describe(hosts[name])
    assert (device.name, device.description) == (
        expected.name,
        f"{expected.described}, {hosts[name].cores} logical cores, as detected",
    )
    assert (hosts[name].core, device.match.flags) == (expected.core, expected.flags)
    assert device.differences(hosts[name]) == []
    path = tmp_path / f"{device.name}.toml"
    path.write_text(toml_text(device), encoding="utf-8")
    assert read_spec(path, Device) == device
    assert "0000000000000000" not in toml_text(device)  # the serial number


def test_names_are_unique_and_boards_are_different_devices(hosts: dict[str, Host]) -> None:
    devices = {name: describe(host) for name, host in hosts.items()}
    assert len({device.name for device in devices.values()}) == len(BOARDS)
    for name, device in devices.items():
        assert [other for other, host in hosts.items() if not device.differences(host)] == [name]


def test_a_raspberry_pi_4_is_not_a_raspberry_pi_5(hosts: dict[str, Host]) -> None:
    assert describe(hosts["raspberry-pi-5"]).differences(hosts["raspberry-pi-4"]) == [
        "CPU: expected 'Arm implementer 0x41 part 0xd0b', found 'Arm implementer 0x41 part 0xd08'",
        "CPU flags: expected asimd, asimdhp, asimddp; found all but asimdhp, asimddp",
        "core: expected '0xd0b r4p1', found '0xd08 r0p3'",
        r"board: expected 'Raspberry Pi 5 Model B Rev 1\\.0', found 'Raspberry Pi 4 Model B Rev 1.4'",
    ]


def test_a_32_bit_kernel_on_the_same_board_is_another_device(hosts: dict[str, Host]) -> None:
    wide, narrow = hosts["raspberry-pi-3"], hosts["raspberry-pi-3-32-bit"]
    assert describe(wide).differences(narrow) == ["CPU flags: expected asimd; found all but asimd"]
    assert describe(narrow).differences(wide) == ["CPU flags: expected neon, vfpv4; found all but neon, vfpv4"]


def test_only_an_apple_virtual_machine_needs_a_name(hosts: dict[str, Host]) -> None:
    assert [name for name, host in hosts.items() if not host.recognisable] == ["apple-virtual-machine"]


def test_names_of_earlier_versions(hosts: dict[str, Host]) -> None:
    former = {name: former_name(host) for name, host in hosts.items()}
    assert former["raspberry-pi-5"] == "arm-implementer-0x41-part-0xd0b-4c"
    assert former["rock-5b"] == "arm-implementer-0x41-part-0xd05-0xd0b-8c"
    assert former["apple-virtual-machine"] == "arm-implementer-0x61-part-0x000-4c"
    assert (former["visionfive-2"], former["banana-pi-f3"]) == ("riscv64-4c", "spacemit-x60-8c")


@pytest.mark.parametrize("name", BOARDS)
def test_kinds_of_cores_and_the_cores_for_timing(name: str, tmp_path: Path) -> None:
    expected, topology = EXPECTED[name], read_topology(write_board(name, tmp_path))
    assert topology.document()["kinds"] == [{"kind": kind, "cores": cores} for kind, cores in expected.kinds.items()]
    allowed = [core.number for core in topology.cores]
    assert {n: choose_cores(topology, allowed, n).text for n in expected.chosen} == expected.chosen
    assert choose_cores(topology, allowed, 4).note == ""


def test_more_threads_than_fast_cores_are_said(tmp_path: Path) -> None:
    chosen = choose_cores(read_topology(write_board("rock-5b", tmp_path)), range(8), 5)
    assert (chosen.text, chosen.note) == (
        "3-7",
        "they are of 2 kinds: Cortex-A76, capacity 1024, Cortex-A55, capacity 414",
    )


def test_caches_are_those_of_the_fast_cores(hosts: dict[str, Host]) -> None:
    rock, pi = hosts["rock-5b"], hosts["raspberry-pi-4"]
    assert (rock.l1d_kib, rock.l2_kib, rock.l3_kib, rock.memory_gib) == (64, 512, 3072, 15.4)
    assert (pi.l1d_kib, pi.l2_kib, pi.l3_kib, pi.memory_gib) == (32, 1024, None, 3.7)
    assert hosts["apple-virtual-machine"].l1d_kib is None  # its cache has no size


def test_extensions_of_riscv(hosts: dict[str, Host]) -> None:
    assert {"i", "m", "a", "f", "d", "c", "v", "zvfh", "svpbmt"} <= set(hosts["banana-pi-f3"].flags)
    assert set(hosts["visionfive-2"].flags) == {*"imafdc", "zicntr", "zicsr", "zifencei", "zihpm", "zba", "zbb"}


@pytest.mark.parametrize(
    ("name", "core", "state"),
    [
        (
            *("rock-5b", 5),
            {
                "scaling_governor": "schedutil",
                "scaling_cur_freq": "1608000",
                "scaling_max_freq": "1608000",
                "cpuinfo_max_freq": "2400000",
                "temperatures_c": "bigcore0-thermal 85.1, bigcore1-thermal 84.2, soc-thermal 83.2, "
                "littlecore-thermal 82.3",
                "throttling": "cpufreq-cpu4 at 3 of 8",
            },
        ),
        (
            *("raspberry-pi-4", 3),
            {
                "scaling_governor": "ondemand",
                "scaling_cur_freq": "1000000",
                "scaling_max_freq": "1800000",
                "cpuinfo_max_freq": "1800000",
                "temperatures_c": "cpu-thermal 82.3",
                "throttling": "soft temperature limit, under-voltage since the start, throttled since the start",
            },
        ),
        ("apple-virtual-machine", 0, {}),
    ],
)
def test_clock_temperature_and_throttling(name: str, core: int, state: dict[str, str], tmp_path: Path) -> None:
    assert cpu_state(write_board(name, tmp_path), core=core) == state


def test_what_slows_a_cpu_now(tmp_path: Path) -> None:
    slowed = {name: slowed_by(write_board(name, tmp_path / name)) for name in BOARDS}
    assert {name: words for name, words in slowed.items() if words} == {
        "rock-5b": "cpufreq-cpu4 at 3 of 8",
        "raspberry-pi-4": "soft temperature limit",
    }
    assert cpu_state(tmp_path / "raspberry-pi-5")["throttling"] == "none"
    assert "throttling" not in cpu_state(tmp_path / "ampere-altra")


def test_counts_of_intel_and_garbage(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "12\n",
        "sys/class/thermal/thermal_zone0/temp": "hot\n",
        "sys/class/thermal/thermal_zone1/temp": "-274000\n",
        "sys/class/thermal/thermal_zone10/temp": "40000\n",
        "sys/class/thermal/thermal_zone2/type": "acpitz\n",
        "sys/class/thermal/thermal_zone2/temp": "40000\n",
        "sys/class/thermal/cooling_device0/type": "intel_powerclamp\n",
        "sys/class/thermal/cooling_device0/cur_state": "-1\n",
        "sys/class/thermal/cooling_device1/type": "cpu-fan\n",
        "sys/class/thermal/cooling_device1/cur_state": "1\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "garbage\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    warm = "acpitz 40.0, thermal_zone10 40.0"
    assert cpu_state(tmp_path, core=1) == {"temperatures_c": warm, "throttling": "throttled 12 times since the start"}
    assert cpu_state(tmp_path, core=0) == {"temperatures_c": warm, "throttling": "none"}


# -- snapshots -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOARDS)
def test_a_copy_of_the_listed_files_describes_the_board(name: str, tmp_path: Path, hosts: dict[str, Host]) -> None:
    root = write_board(name, tmp_path / "board")
    copy = copy_snapshot(root, tmp_path / "copy")
    expected = EXPECTED[name]
    allowed = range(hosts[name].cores)
    assert read_host(copy, architecture=expected.architecture, allowed=allowed) == hosts[name]
    for reader in (read_topology, cpu_quota, cpu_state, slowed_by):
        assert reader(copy) == reader(root)


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux has these files")
def test_a_copy_of_the_listed_files_describes_this_host(tmp_path: Path) -> None:
    copy, host = copy_snapshot(Path("/"), tmp_path), detect_host()
    assert read_host(copy, architecture=host.architecture, allowed=allowed_cores(), gpus=host.gpus) == host
    assert read_topology(copy) == read_topology()
    assert cpu_quota(copy) == cpu_quota()
    assert cpu_state(copy).keys() == cpu_state().keys()  # their values change from one moment to the next


@pytest.mark.parametrize("name", BOARDS)
def test_the_list_has_every_file_that_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, real = write_board(name, tmp_path), Path.read_bytes
    opened: set[PurePath] = set()

    def read_bytes(path: Path) -> bytes:
        opened.add(path.relative_to(root))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    read_host(root, architecture="any", allowed=(0,))
    cpu_quota(root)
    cpu_state(root, core=1)
    assert len(opened) > 30
    assert [path for path in opened if not any(path.match(pattern) for pattern in SNAPSHOT)] == []
