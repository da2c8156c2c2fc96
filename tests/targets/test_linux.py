"""Machines as Linux reports them, as simulated trees of /proc and /sys."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hwnas.targets import Host, describe
from hwnas.targets import host as host_module
from hwnas.targets.linux import from_linux

CACHE = "sys/devices/system/cpu/cpu0/cache"
MODEL = "proc/device-tree/model"
PRODUCT, VENDOR = "sys/class/dmi/id/product_name", "sys/class/dmi/id/sys_vendor"
MAC = """\
processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp
CPU implementer\t: 0x61
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0x000
CPU revision\t: 0
"""
PI = MAC.replace("0x61", "0x41").replace("0x000", "0xd0b").replace("variant\t: 0x0", "variant\t: 0x4")
PI = PI.replace("revision\t: 0", "revision\t: 1")
VISIONFIVE = """\
processor\t: 0
hart\t\t: 1
isa\t\t: rv64imafdc_zicntr_zicsr_zihpm
mmu\t\t: sv39
uarch\t\t: sifive,u74-mc
mvendorid\t: 0x489
marchid\t\t: 0x8000000000000007
mimpid\t\t: 0x4210427
"""
RISCV_QEMU = "processor: 0\nisa: rv64imafdch_zicsr\nmmu: sv57\nmvendorid: 0x0\nmarchid: 0x0\nmimpid: 0x0\n"
MAINFRAME = (
    "vendor_id       : IBM/S390\nfeatures\t: esan3 zarch vx vxd\n"
    "processor 0: version = FF,  identification = 0133E8,  machine = 8561\n"
)
POWER = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nmodel\t\t: IBM,9006-22P\nmachine\t\t: PowerNV\n"
LOONG = "processor : 0\nCPU Family : Loongson-64bit\nModel Name : Loongson-3A5000\nFeatures : cpucfg lam lsx lasx\n"
UNKNOWN = "processor : 0\nvendor_id : unknown\ncpu family : unknown\nmodel : unknown\nmodel name :   \nflags : avx2\n"
GVISOR = "processor : 0\ncpu family : 6\nmodel : 85\nmodel name : unknown\nflags : avx avx2\n"

Machine = Callable[..., Host]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A function that gives the host which a tree of these files describes."""

    def detect(architecture: str, cpuinfo: str | None, files: Mapping[str, str] | None = None) -> Host:
        for name, text in {**({} if cpuinfo is None else {"proc/cpuinfo": cpuinfo}), **(files or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("latin-1"))
        return from_linux(Host(architecture=architecture, cpu_name=architecture, cores=4), tmp_path)

    return detect


MACHINES = [
    ("aarch64", MAC, {}, "Arm implementer 0x61 part 0x000", "apple-silicon-4c", False),
    (
        *("aarch64", MAC, {"sys/class/dmi/id/product_name": "Apple Virtualization Generic Platform\n"}),
        *("Arm implementer 0x61 part 0x000", "apple-silicon-4c", False),
    ),
    (
        *("aarch64", PI, {MODEL: "Raspberry Pi 5 Model B Rev 1.0\0"}),
        *("Arm implementer 0x41 part 0xd0b", "raspberry-pi-5-model-b-rev-1.0-4c", True),
    ),
    ("aarch64", PI, {}, "Arm implementer 0x41 part 0xd0b", "cortex-a76-4c", True),
    ("armv7l", PI, {}, "Arm implementer 0x41 part 0xd0b", "cortex-a76-armv7l-4c", True),
    (
        *("aarch64", PI.replace("0xd0b", "0xdff"), {}, "Arm implementer 0x41 part 0xdff"),
        *("arm-implementer-0x41-part-0xdff-4c", True),
    ),
    (
        *("aarch64", PI.replace("0xd0b", "0xd0c"), {PRODUCT: "Google Compute Engine", VENDOR: "Google"}),
        *("Arm implementer 0x41 part 0xd0c", "google-google-compute-engine-neoverse-n1-4c", True),
    ),
    (
        *("armv7l", "Processor : ARMv7 Processor rev 0\nCPU part : 0xc09\nHardware : ODROID-X2\n", {}),
        *("Arm implementer unknown part 0xc09", "odroid-x2-armv7l-4c", True),
    ),
    (
        *("aarch64", "CPU part : 0xd0c\n", {}, "Arm implementer unknown part 0xd0c"),
        *("arm-implementer-unknown-part-0xd0c-4c", True),
    ),
    (
        *("riscv64", VISIONFIVE, {MODEL: "StarFive VisionFive 2 v1.3B\0"}),
        *("riscv64", "starfive-visionfive-2-v1.3b-4c", True),
    ),
    (
        *("riscv64", VISIONFIVE, {MODEL: "riscv-virtio,qemu\0"}, "riscv64"),
        *("sifive-u74-mc-mvendorid-0x489-marchid-0x8000000000000007-mimpid-0x4210427-rv64im-4c", True),
    ),
    ("riscv64", RISCV_QEMU, {MODEL: "riscv-virtio,qemu\0"}, "riscv64", "riscv64-4c", False),
    ("s390x", MAINFRAME, {}, "s390x", "ibm-machine-8561-4c", True),
    ("ppc64le", POWER, {}, "ppc64le", "power9-altivec-supported-4c", True),
    ("loongarch64", LOONG, {}, "loongarch64", "loongson-3a5000-4c", True),
    ("x86_64", UNKNOWN, {}, "x86_64", "x86-64-4c", False),
    ("x86_64", GVISOR, {}, "x86_64 family 6 model 85", "x86-64-f6m85-4c", True),
    (
        *("x86_64", "model name : QEMU Virtual CPU version 2.5+\ncpu family : 15\nmodel : 107\n", {}),
        *("QEMU Virtual CPU version 2.5+ family 15 model 107", "qemu-virtual-version-2.5-4c", False),
    ),
    ("x86_64", None, {}, "x86_64", "x86-64-4c", False),
    ("x86_64", "\xff\n::\n: :\nmodel name : \x01\xe9\ncpu family : 6 7\n", {}, "\x01\ufffd", "x86-64-4c", True),
]


@pytest.mark.parametrize(("architecture", "cpuinfo", "files", "cpu", "name", "recognisable"), MACHINES)
def test_what_a_machine_is_called(
    machine: Machine,
    architecture: str,
    cpuinfo: str | None,
    files: dict[str, str],
    cpu: str,
    name: str,
    recognisable: bool,
) -> None:
    host = machine(architecture, cpuinfo, files)
    assert (host.cpu, describe(host).name, host.recognisable) == (cpu, name, recognisable)
    assert describe(host).differences(host) == []


def test_boards_with_the_same_cores_are_told_apart(machine: Machine) -> None:
    pi = machine("aarch64", PI, {MODEL: "Raspberry Pi 5 Model B Rev 1.0\0"})
    device = describe(pi)
    assert (device.match.board, device.match.core) == ("Raspberry Pi 5 Model B Rev 1\\.0", "0xd0b r4p1")
    cloud = machine(
        "aarch64",
        PI,
        {MODEL: "", "sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "sys/class/dmi/id/product_name": "m6g.xlarge\n"},
    )
    assert device.differences(cloud) == [
        "board: expected 'Raspberry Pi 5 Model B Rev 1\\\\.0', found 'Amazon EC2 m6g.xlarge'"
    ]
    older = machine(
        "aarch64", PI.replace("revision\t: 1", "revision\t: 0"), {MODEL: "Raspberry Pi 5 Model B Rev 1.0\0"}
    )
    assert device.differences(older) == ["core: expected '0xd0b r4p1', found '0xd0b r4p0'"]


def test_a_container_on_a_raspberry_pi_sees_its_model_in_cpuinfo(machine: Machine) -> None:
    host = machine("aarch64", PI + "\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\nSerial\t\t: 10000000abcdef\n")
    assert host.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert "abcdef" not in describe(host).model_dump_json()


@pytest.mark.parametrize(
    "product", ["To Be Filled By O.E.M.", "Virtual Machine", "KVM Virtual Machine", "0000", "None", " "]
)
def test_what_firmware_says_where_nobody_filled_it_in_is_no_board(machine: Machine, product: str) -> None:
    files = {"sys/class/dmi/id/sys_vendor": "QEMU", "sys/class/dmi/id/product_name": product}
    assert machine("aarch64", MAC, files).board is None


def test_facts_that_are_no_text_of_a_name_stay_short(machine: Machine) -> None:
    host = machine("riscv64", VISIONFIVE, {MODEL: "StarFive " + "x y " * 300})
    assert host.board is not None
    assert len(host.board) <= 200
    assert len(describe(host).name) < 100


SIZES = {"512K": 512, "1M": 1024, "1024": 1, "1G": 2**20, "48K\n": 48}
NO_SIZES = ["", "0K", "-1K", "big", "9" * 5000, None]


@pytest.mark.parametrize(("size", "kib"), [*SIZES.items(), *((size, None) for size in NO_SIZES)])
def test_sizes_of_caches(machine: Machine, size: str | None, kib: int | None) -> None:
    files = {f"{CACHE}/index0/level": "2\n", f"{CACHE}/index0/type": "Unified\n"}
    if size is not None:  # virtual machines on a Mac and some Arm boards have the folder without the file
        files[f"{CACHE}/index0/size"] = size
    host = machine("aarch64", MAC, files)
    assert (host.l1d_kib, host.l2_kib, host.l3_kib) == (None, kib, None)
    assert describe(host).hardware.l2_kib == kib


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENODEV])
def test_files_that_cannot_be_read(machine: Machine, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    files = {f"{CACHE}/index0/{name}": "1\n" for name in ("level", "type", "size")}

    def closed(path: Path) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "read_bytes", closed)
    host = machine("x86_64", UNKNOWN, files)
    assert host == Host(architecture="x86_64", cpu_name="x86_64", cores=4)


def test_memory_that_the_system_does_not_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    for sysconf in (unknown, lambda name: -1, lambda name: 0):
        monkeypatch.setattr(host_module.os, "sysconf", sysconf)
        assert host_module._memory_gib() is None
    monkeypatch.setattr("hwnas.targets.linux.content", lambda path: "")
    assert host_module.detect_host.__wrapped__().memory_gib is None


@pytest.mark.parametrize(
    ("text", "gib"), [("MemTotal:  8255152 kB\nMemFree: 1 kB\n", 7.9), ("MemTotal: 8 GB\n", None), ("", None)]
)
def test_memory_by_linux(machine: Machine, text: str, gib: float | None) -> None:
    assert machine("aarch64", PI, {"proc/meminfo": text}).memory_gib == gib


def test_an_architecture_without_a_name() -> None:
    assert describe(Host(architecture="", cpu_name="", cores=1)).name == "cpu-1c"
    assert describe(Host(architecture="\u6c38", cpu_name="\u6c38", cores=1)).name == "cpu-1c"
