"""Deployment: parity with the network before lowering, the bundle, its verification and its re-benchmark."""

from hwnas.deploy.benchmark import Benchmark, bench
from hwnas.deploy.bundle import Bundle, open_bundle, write_bundle
from hwnas.deploy.exporter import export
from hwnas.deploy.manifest import BundleManifest, ParityReport
from hwnas.deploy.verification import Verification, verify

__all__ = [
    "Benchmark",
    "Bundle",
    "BundleManifest",
    "ParityReport",
    "Verification",
    "bench",
    "export",
    "open_bundle",
    "verify",
    "write_bundle",
]
