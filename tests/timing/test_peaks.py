"""The peak figures of a CPU, on a clock that the test advances: each run takes as long as a made-up CPU would need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hwnas.targets import Host, describe
from hwnas.timing import peaks
from hwnas.timing.peaks import measure_peaks

HOST = Host(architecture="x86_64", cpu_name="Test CPU 9", cores=3, memory_gib=1.0)


class Cpu:
    """Does nothing, in a time that depends on the work; the first run of each piece of work takes ten times as long."""

    def __init__(self, gflops: dict[int, float], gb_per_s: float) -> None:
        self.gflops, self.gb_per_s, self.now_s = gflops, gb_per_s, 0.0
        self.runs: list[int] = []
        self.copied: set[int] = set()
        self.threads: set[int] = set()

    def clock(self) -> float:
        return self.now_s

    def mm(self, a: torch.Tensor, b: torch.Tensor, *, out: torch.Tensor) -> None:
        width = len(a)
        assert a.shape == b.shape == out.shape == (width, width) and a.dtype == torch.float32
        self.now_s += 2 * width**3 / self.gflops[width] / 1e9 * (1 if width in self.runs else 10)
        self.runs.append(width)
        self.threads.add(torch.get_num_threads())

    def copy_(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.now_s += 2 * source.nbytes / self.gb_per_s / 1e9
        self.copied.add(target.nbytes)


@pytest.fixture
def measured_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def measure(cpu: Cpu, host: Host = HOST, **more: Any) -> peaks.Peaks:
        monkeypatch.setattr(torch, "mm", cpu.mm)
        monkeypatch.setattr(torch.Tensor, "copy_", lambda *arrays: cpu.copy_(*arrays))  # noqa: PLW0108  # it binds
        return measure_peaks(host, clock=cpu.clock, **more)

    return measure


def test_the_fastest_of_all_counts(measured_on: Any) -> None:
    before = torch.get_num_threads()
    cpu = Cpu({512: 50.0, 1024: 123.456, 2048: 100.0, 3072: 90.0}, 20.0)
    steps: list[tuple[int, int]] = []
    found = measured_on(cpu, progress=lambda what, done, total: steps.append((done, total)))
    assert (found.fp32_gflops, found.memory_gb_per_s) == (123.0, 20.0)
    assert cpu.threads == {3} and torch.get_num_threads() == before
    assert steps == [(i, 5) for i in range(6)]
    # An eighth of the memory, where 256 MiB were more.
    assert cpu.copied == {128 * 2**20}
    assert "(512 to 3072 wide" in found.how and "threads: 3)" in found.how and "128 MiB array" in found.how


def test_a_slow_board_is_not_kept_busy(measured_on: Any) -> None:
    cpu = Cpu(dict.fromkeys((512, 1024, 2048, 3072), 3.0), 2.0)
    found = measured_on(cpu)
    assert set(cpu.runs) == {512, 1024}
    assert cpu.now_s < 15
    assert "(512 to 1024 wide" in found.how


def test_the_device_says_where_its_peaks_are_from(measured_on: Any) -> None:
    device = describe(HOST)
    found = measured_on(Cpu(dict.fromkeys((512, 1024, 2048, 3072), 80.0), 10.0)).of(device)
    assert (found.hardware.peak_fp32_gflops, found.hardware.peak_memory_gb_per_s) == (80.0, 10.0)
    assert found.hardware.source.startswith(device.hardware.source + "; the peaks are measured on it")
    assert found.fingerprint == device.fingerprint, "tables of the device stay its tables"


def test_really_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_WIDTHS", (64, 128))
    monkeypatch.setattr(peaks, "_LEAST_S", 0.0)
    found = measure_peaks(Host(architecture="x86_64", cpu_name="Test CPU 9", cores=1, memory_gib=0.1))
    assert found.fp32_gflops > 0 and found.memory_gb_per_s > 0
