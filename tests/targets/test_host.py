from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from hwnas.errors import RuntimeUnavailable
from hwnas.targets import Host, describe, describe_gpu, detect_host
from hwnas.targets import host as host_module
from hwnas.targets.host import from_registry, from_sysctl
from hwnas.targets.linux import from_linux

EPYC = """\
processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu fma avx avx2 avx512f avx512_vnni

processor\t: 1
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu fma avx avx2 avx512f avx512_vnni
"""
BIG_LITTLE = """\
processor\t: 0
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd05

processor\t: 1
Features\t: fp asimd asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""
BARE = Host(architecture="x86_64", cpu_name="x86_64", cores=2)


def named(cpu_name: str, **more: int) -> str:
    return describe(Host(architecture="x86_64", cpu_name=cpu_name, cores=4, **more)).name  # type: ignore[arg-type]


def machine(
    root: Path,
    cpuinfo: str = "",
    *,
    caches: Iterable[tuple[object, str, str]] = (),
    files: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A simulated tree of /proc and /sys: level, type and size of caches, and files by their path."""
    texts = {"proc/cpuinfo": cpuinfo, **files}
    for i, facts in enumerate(caches):
        folder = f"sys/devices/system/cpu/cpu0/cache/index{i}"
        texts |= {f"{folder}/{name}": f"{text}\n" for name, text in zip(("level", "type", "size"), facts, strict=True)}
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_x86_on_linux(tmp_path: Path) -> None:
    host = from_linux(BARE, machine(tmp_path, EPYC))
    assert host.cpu == "AMD EPYC family 25 model 17"
    assert host.flags == ("avx", "avx2", "avx512_vnni", "avx512f", "fma", "fpu")


def test_arm_on_linux_names_every_kind_of_core(tmp_path: Path) -> None:
    host = from_linux(BARE, machine(tmp_path, BIG_LITTLE))
    assert host.cpu == "Arm implementer 0x41 part 0xd05 0xd0b"
    assert describe(host).name == "cortex-a55-cortex-a76-2c"
    assert describe(host).match.flags == ("asimd", "asimddp")


def test_macos() -> None:
    apple = from_sysctl(
        BARE,
        "machdep.cpu.brand_string: Apple M2 Pro\nhw.memsize: 17179869184\nhw.l1dcachesize: 65536\n"
        "hw.optional.AdvSIMD: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\nhw.empty:\n",
    )
    assert (apple.cpu, apple.memory_gib, apple.l1d_kib, apple.l2_kib) == ("Apple M2 Pro", 16.0, 64, None)
    assert apple.flags == ("asimd", "asimddp")
    intel = from_sysctl(
        BARE,
        "machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz\nmachdep.cpu.family: 6\n"
        "machdep.cpu.model: 158\nmachdep.cpu.features: FMA AVX1.0\nmachdep.cpu.leaf7_features: AVX2\n",
    )
    assert intel.cpu == "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz family 6 model 158"
    assert intel.flags == ("avx", "avx2", "fma")


def test_windows() -> None:
    host = from_registry(BARE, "AMD Ryzen 9 5950X 16-Core Processor    ", "AMD64 Family 25 Model 33 Stepping 0")
    assert host.cpu == "AMD Ryzen 9 5950X 16-Core Processor family 25 model 33"


@pytest.mark.parametrize(
    ("cpu_name", "name"),
    [
        ("AMD EPYC", "amd-epyc-f25m17-4c"),
        ("Intel(R) Xeon(R) Processor @ 2.20GHz", "intel-xeon-f25m17-4c"),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "intel-core-i7-9750h-4c"),
        ("AMD Ryzen 9 5950X 16-Core Processor", "amd-ryzen-9-5950x-4c"),
        ("Apple M2 Pro", "apple-m2-pro-4c"),
        ("", "x86-64-f25m17-4c"),
    ],
)
def test_the_name_tells_generations_apart(cpu_name: str, name: str) -> None:
    assert named(cpu_name, family=25, model=17) == name


def test_a_detected_spec_is_its_host_even_with_special_characters() -> None:
    host = Host(
        architecture="x86_64",
        cpu_name="Intel(R) Xeon(R) CPU @ 2.20GHz [x] a+b*",
        family=6,
        model=85,
        flags=("avx2", "fpu"),
        cores=2,
    )
    device = describe(host)
    assert device.differences(host) == []
    assert device.match.flags == ("avx2",)
    assert device.match.cores == 2


def test_caches_from_sysfs(tmp_path: Path) -> None:
    caches = [(1, "Data", "48K"), (1, "Instruction", "32K"), (2, "Unified", "2048K")]
    host = from_linux(BARE, machine(tmp_path, caches=caches))
    assert (host.l1d_kib, host.l2_kib, host.l3_kib) == (48, 2048, None)


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
def test_gpu_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(
        tmp_path, 'test "$*" = "--query-gpu=index,name --format=csv,noheader" && echo 0, NVIDIA H200', monkeypatch
    )
    assert host_module._gpus() == ("NVIDIA H200",)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
def test_the_state_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "580.1, 143771 MiB, 700.00 W, 1980 MHz, 3201 MHz, 345 MHz, 3201 MHz, Enabled, Disabled"
    fake_nvidia_smi(
        tmp_path, f'case "$*" in "--query-gpu=driver_version,memory.total,"*) echo {answer};; esac', monkeypatch
    )
    state = host_module.gpu_state()
    assert (state["driver_version"], state["clocks.max.sm"], state["mig.mode.current"]) == (
        "580.1",
        "1980 MHz",
        "Disabled",
    )
    fake_nvidia_smi(tmp_path, "exit 9", monkeypatch)
    assert host_module.gpu_state() == {}


def test_a_gpu_is_described_by_its_name() -> None:
    device = describe_gpu(replace(BARE, gpus=("NVIDIA A100-SXM4-80GB (x+y)", "NVIDIA L4")))
    assert (device.name, device.kind) == ("nvidia-a100-sxm4-80gb-x-y", "gpu")
    assert device.differences(replace(BARE, gpus=("NVIDIA A100-SXM4-80GB (x+y)",))) == []
    assert device.differences(replace(BARE, gpus=("NVIDIA L4",)))
    with pytest.raises(RuntimeUnavailable, match="this host has no GPU that nvidia-smi reports"):
        describe_gpu(BARE)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
def test_a_driver_that_fails_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_nvidia_smi(tmp_path, "exit 9", monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert host_module._gpus() == ()
    assert "no GPU is detected" in caplog.text
    assert "exit status 9" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    "script",
    [
        "echo No devices were found",
        "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
        "echo '1, 2, 3, 4'",
        "printf '\\377\\376, \\n'",
        "printf '0, \\n'",
    ],
)
def test_an_nvidia_smi_that_answers_something_else(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake_nvidia_smi(tmp_path, script, monkeypatch)
    assert host_module._gpus() == ()
    assert host_module.gpu_state() == {}
    assert caplog.text.count("no GPU is detected") == 2


def test_a_macos_without_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module.sys, "platform", "darwin")

    def fails(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "/usr/sbin/sysctl")

    monkeypatch.setattr(host_module.subprocess, "run", fails)
    host = detect_host.__wrapped__()
    assert (host.memory_gib, host.flags) == (None, ())
    assert from_sysctl(BARE, "hw.memsize: many\nmachdep.cpu.family:\nmachdep.cpu.brand_string:  \n") == BARE


def test_no_nvidia_smi_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_module._gpus() == ()


def test_this_machine() -> None:
    host = detect_host()
    assert host.cpu_name
    assert host.cores >= 1
    device = describe(host)
    assert device.differences(host) == []
    assert describe(host) == device
    # Facts only.
    assert platform.node() not in device.model_dump_json()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_pinning_does_not_change_the_host() -> None:
    before, cores = detect_host(), os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert detect_host() == before
    finally:
        os.sched_setaffinity(0, cores)
