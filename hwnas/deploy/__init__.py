"""Deployment: parity with the network before lowering, the bundle, its verification and its re-benchmark."""

from hwnas.deploy.bench import Benchmark, bench
from hwnas.deploy.bundle import Bundle, open_bundle, write_bundle
from hwnas.deploy.export import export
from hwnas.deploy.manifest import BundleManifest, ParityReport
from hwnas.deploy.verify import Verification, verify

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
