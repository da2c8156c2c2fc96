"""Deployment: parity with the network before lowering, the bundle, and its re-benchmark."""

from hwnas.deploy.bench import Benchmark, bench
from hwnas.deploy.bundle import Bundle, BundleManifest, open_bundle, write_bundle
from hwnas.deploy.export import export
from hwnas.deploy.parity import ParityReport, check_parity

__all__ = [
    "Benchmark",
    "Bundle",
    "BundleManifest",
    "ParityReport",
    "bench",
    "check_parity",
    "export",
    "open_bundle",
    "write_bundle",
]
