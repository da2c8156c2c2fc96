"""Measured peak figures of the present CPU, for the estimates of the roofline recipe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from hwnas.progress import Progress, silent
from hwnas.targets import Device, Host

# A small product fits the caches and a large one uses all threads; the fastest size depends on the CPU.
_WIDTHS = (512, 1024, 2048, 3072)
_COPY_MIB = 256  # far above the L3 cache of most CPUs
_COPY_SHARE = 1 / 8  # largest share of the memory for each of two arrays
_LEAST_RUNS, _LEAST_S = 3, 0.3  # smallest number of runs and of seconds for each product or copy
_LONGEST_S = 1.0  # products that would take longer are skipped, on the slowest boards


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Measured peak figures of a CPU.

    Attributes:
        fp32_gflops: of the fastest matrix product, in 10^9 floating point operations per second (2 per multiply-add).
        memory_gb_per_s: of the fastest copy, bytes read plus bytes written, in 10^9 bytes per second.
        how: description of the measurement.
    """

    fp32_gflops: float
    memory_gb_per_s: float
    how: str

    def of(self, device: Device) -> Device:
        """The device with these figures, and a source that says that they were measured."""
        hardware = device.hardware.model_copy(
            update={
                "peak_fp32_gflops": self.fp32_gflops,
                "peak_memory_gb_per_s": self.memory_gb_per_s,
                "source": f"{device.hardware.source}; the peaks are measured on it, not the maker's: {self.how}",
            }
        )
        return device.model_copy(update={"hardware": hardware})


def measure_peaks(host: Host, *, clock: Callable[[], float] = time.perf_counter, progress: Progress = silent) -> Peaks:
    """Measure the peaks of the present host's CPU, on all of its cores; takes a few seconds.

    Other load on the machine lowers both figures.

    Args:
        host: the present host; one thread per core.
        clock: a clock in seconds.
        progress: callback, invoked after each matrix product and the copies.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(host.cores)
    try:
        with torch.inference_mode():
            return _measured(host, clock, progress)
    finally:
        torch.set_num_threads(threads)


def _measured(host: Host, clock: Callable[[], float], progress: Progress) -> Peaks:
    what, steps = "measuring peaks", len(_WIDTHS) + 1
    progress(what, 0, steps)
    gflops, widths = 0.0, list[int]()
    for number, width in enumerate(_WIDTHS):
        flops = 2 * width**3
        if not widths or flops / (gflops * 1e9) <= _LONGEST_S:
            a, b, out = (torch.ones(width, width) for _ in range(3))
            gflops = max(gflops, flops / _fastest_s(partial(torch.mm, a, b, out=out), clock) / 1e9)
            widths.append(width)
        progress(what, number + 1, steps)
    memory_mib = _COPY_MIB / _COPY_SHARE if host.memory_gib is None else host.memory_gib * 1024
    size_mib = max(1, int(min(_COPY_MIB, memory_mib * _COPY_SHARE)))
    source, copy = (torch.ones(size_mib * 2**18) for _ in range(2))
    copy_s = _fastest_s(lambda: copy.copy_(source), clock)
    progress(what, steps, steps)
    return Peaks(
        fp32_gflops=_rounded(gflops),
        memory_gb_per_s=_rounded(2 * size_mib * 2**20 / copy_s / 1e9),
        how=(
            f"the fastest of several fp32 matrix products ({min(widths)} to {max(widths)} wide, torch "
            f"{torch.__version__}, threads: {host.cores}) and of several copies of a {size_mib} MiB array (bytes read "
            "plus bytes written)"
        ),
    )


def _fastest_s(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of the fastest run, after one warm-up run."""
    run()
    times = list[float]()
    while len(times) < _LEAST_RUNS or sum(times) < _LEAST_S:
        began = clock()
        run()
        times.append(clock() - began)
    return min(times)


def _rounded(figure: float) -> float:
    """Round to three digits: repeated measurements differ by more."""
    return float(f"{figure:.3g}")
