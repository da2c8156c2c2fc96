"""Re-benchmark: a bundle's latency, measured by the protocol of its prediction."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.deploy.bundle import Bundle
from hwnas.deploy.verdict import over_budget
from hwnas.deploy.verification import check_outputs
from hwnas.progress import Progress, silent
from hwnas.targets import Device, Recipe
from hwnas.timing import Measurement, require_cores, time_programs
from hwnas.timing.protocol import Protocol, usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Measured and predicted latency of a bundle, in milliseconds.

    Attributes:
        target: the measured device and the recipe.
        measured_ms, p50_ms, p90_ms: quantiles; `measured_ms` is p25, which predictions refer to.
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
    bundle: Bundle, device: Device, *, protocol: Protocol | None = None, progress: Progress = silent
) -> Benchmark:
    """Time a bundle on this host, after checking its outputs on the recorded example.

    Args:
        bundle: an opened bundle.
        device: the device of this host.
        protocol: the timing protocol; the default for networks if None.
        progress: callback, invoked after every visit.

    Raises:
        BundleError: its program cannot be run, or its outputs differ on this host.
        InvalidValue: this process does not have the cores that its recipe needs.
        RuntimeUnavailable: its runtime cannot run on this host.
    """
    recipe: Recipe = bundle.manifest.recipe
    require_cores(recipe)
    check_outputs(bundle)
    protocol = protocol or usual().networks
    measured = time_programs({"bundle": bundle.compiled}, recipe, protocol, what="timing", progress=progress)
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
        predicted_ms=predicted_ms,
        relative_error=None if predicted_ms is None else p25 / predicted_ms - 1,
        budget_ms=bundle.manifest.budget_ms,
        spread=measured.spread,
        too_noisy=measured.too_noisy,
        cores=measured.held.text,
        cores_note=measured.held.note,
    )
