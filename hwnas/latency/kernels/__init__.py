"""Latencies of networks that hwnas did not build, from a table of measured kernels."""

from __future__ import annotations

from hwnas.latency.kernels.kernel import Kernel, kernel_of, parse_kernel
from hwnas.latency.kernels.model import HOW, KernelModel, NetworkLatency, load_kernels
from hwnas.latency.kernels.table import KernelTable, kernel_path, read_kernels, write_kernels

__all__ = [
    "HOW",
    "Kernel",
    "KernelModel",
    "KernelTable",
    "NetworkLatency",
    "kernel_of",
    "kernel_path",
    "load_kernels",
    "parse_kernel",
    "read_kernels",
    "write_kernels",
]
