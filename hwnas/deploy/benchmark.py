"""Re-benchmark: a bundle's latency, measured by the protocol of its prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.deploy.bundle import Bundle
from hwnas.deploy.verdict import over_budget
from hwnas.deploy.verification import check_outputs
from hwnas.errors import InvalidValue
from hwnas.files import Journal
from hwnas.progress import Progress, silent
from hwnas.targets import Device, Recipe
from hwnas.timing import Measurement, require_cores, runs_for, time_programs
from hwnas.timing.protocol import Protocol, usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Measured and predicted latency of a bundle, in milliseconds.

    Attributes:
        target: the measured device and the recipe.
        measured_ms, p50_ms, p90_ms: quantiles; `measured_ms` is p25, which predictions refer to.
        p95_ms, p99_ms: quantiles; None with fewer than 200 and 1,000 timed runs (`hwnas.timing.runs_for`).
        runs: number of timed runs.
        images_per_s: throughput of one stream, i.e. one run after the other: images of a run over its mean time.
        batch: images of a run.
        predicted_ms: from the manifest; None for a bundle without a prediction.
        relative_error: measured over predicted, minus 1; None likewise.
        budget_ms: from the manifest.
        spread, too_noisy: stability of the machine.
        cores: logical cores of the measurement, e.g. ``4-5``; empty if the system cannot pin threads.
        cores_note: caveats about them: shared physical cores, several kinds; empty if none.
    """

    target: str
    measured_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float | None
    p99_ms: float | None
    runs: int
    images_per_s: float
    batch: int
    predicted_ms: float | None
    relative_error: float | None
    budget_ms: float | None
    spread: float
    too_noisy: bool
    cores: str
    cores_note: str

    @property
    def over_budget(self) -> float | None:
        """Measured over budget, minus 1: above 0 if the budget is exceeded; None without a budget."""
        return over_budget(self.measured_ms, self.budget_ms) if self.budget_ms else None


def bench(
    bundle: Bundle,
    device: Device,
    *,
    protocol: Protocol | None = None,
    runs: int | None = None,
    progress: Progress = silent,
) -> Benchmark:
    """Time a bundle on this host, after checking its outputs on the recorded example.

    Args:
        bundle: an opened bundle.
        device: the device of this host.
        protocol: the timing protocol; the default for networks if None.
        runs: least number of timed runs: sessions are added until there are as many; those of the protocol if None.
        progress: callback, invoked after every visit.

    Raises:
        BundleError: its program cannot be run, or its outputs differ on this host.
        InvalidValue: the number of runs is not positive; this process does not have the cores that its recipe needs.
        RuntimeUnavailable: its runtime cannot run on this host.
    """
    recipe: Recipe = bundle.manifest.recipe
    if runs is not None and runs < 1:
        raise InvalidValue(f"the number of timed runs must be positive, not {runs}; p99 needs {runs_for(0.99):,}")
    require_cores(recipe)
    check_outputs(bundle)
    protocol = protocol or usual().networks
    with TemporaryDirectory() as folder, Journal(Path(folder) / "visits.jsonl", {}) as journal:
        while True:
            measured = time_programs(
                {"bundle": bundle.compiled}, recipe, protocol, journal=journal, what="timing", progress=progress
            )
            if runs is None or measured.runs("bundle") >= runs:
                break
            # The journal has the visits so far, so only the added sessions are timed.
            sessions = math.ceil(runs / (measured.runs("bundle") / measured.passes) / protocol.session_passes)
            sessions = max(sessions, measured.passes // protocol.session_passes + 1)
            protocol = replace(protocol, min_sessions=sessions, max_sessions=max(sessions, protocol.max_sessions))
    return summarise(bundle, device, measured, "bundle")


def summarise(bundle: Bundle, device: Device, measured: Measurement, name: str) -> Benchmark:
    """The benchmark of a bundle from a measurement that includes it as `name`."""
    p25, p50, p90 = (measured.quantile_ms(name, q) for q in (0.25, 0.5, 0.9))
    predicted_ms = bundle.manifest.predicted_ms
    return Benchmark(
        target=f"{device.name}/{bundle.manifest.recipe.name}",
        measured_ms=p25,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=measured.tail_ms(name, 0.95),
        p99_ms=measured.tail_ms(name, 0.99),
        runs=measured.runs(name),
        images_per_s=1e3 * bundle.manifest.recipe.batch / measured.mean_ms(name),
        batch=bundle.manifest.recipe.batch,
        predicted_ms=predicted_ms,
        relative_error=None if predicted_ms is None else p25 / predicted_ms - 1,
        budget_ms=bundle.manifest.budget_ms,
        spread=measured.spread,
        too_noisy=measured.too_noisy,
        cores=measured.held.text,
        cores_note=measured.held.note,
    )
