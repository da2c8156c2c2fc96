"""Re-benchmark: a bundle's latency, measured by the protocol and the estimator of its prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hwnas.deploy.bundle import Bundle
from hwnas.deploy.verdict import judged_ms, over_budget
from hwnas.deploy.verification import check_outputs
from hwnas.errors import InvalidValue
from hwnas.files import Journal, temporary_folder
from hwnas.lowering import Program
from hwnas.machines import LocalMachine, Machine
from hwnas.progress import Progress, silent
from hwnas.targets import Device, Recipe
from hwnas.timing import Measurement, runs_for
from hwnas.timing.among import Among, Reference, Time, time_among
from hwnas.timing.protocol import Protocol, usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """Measured and predicted latency of a bundle, in milliseconds.

    Attributes:
        target: the measured device and the recipe.
        measured_ms: latency on the quiet machine: p25 of calm visits without drift, which predictions refer to.
        p50_ms, p90_ms: quantiles of all runs.
        p95_ms, p99_ms: quantiles; None with fewer than 200 and 1,000 timed runs (`hwnas.timing.runs_for`).
        runs: number of timed runs.
        images_per_s: throughput of one stream, i.e. one run after the other: images of a run over its mean time.
        batch: images of a run.
        predicted_ms: from the manifest, at the machine's speed in the profile; None for a bundle without a prediction.
        speed: of the machine now, relative to its speed in the profile, by the bundle's reference programs; None
            without them.
        expected_ms: the prediction at that speed; equal to `predicted_ms` if the speed is not known.
        relative_error: measured over expected, minus 1; None without a prediction.
        budget_ms: from the manifest.
        spread: stability of the machine (`hwnas.timing.Measurement.spread`).
        too_noisy: whether the machine was too noisy for the figures to be trusted.
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
    speed: float | None
    expected_ms: float | None
    relative_error: float | None
    budget_ms: float | None
    spread: float
    too_noisy: bool
    cores: str
    cores_note: str

    @property
    def judged_ms(self) -> float:
        """The latency at the machine's speed in the profile (`hwnas.deploy.verdict.judged_ms`)."""
        return judged_ms(self.measured_ms, self.speed)

    @property
    def over_budget(self) -> float | None:
        """Latency over budget, minus 1: above 0 if the budget is exceeded; None without a budget."""
        return over_budget(self.judged_ms, self.budget_ms) if self.budget_ms else None


def bench(
    bundle: Bundle,
    device: Device,
    *,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    runs: int | None = None,
    progress: Progress = silent,
) -> Benchmark:
    """Time a bundle among its reference programs, after checking its outputs on the recorded example.

    Args:
        bundle: an opened bundle.
        device: the device of the machine.
        machine: where it is timed; the present host if None.
        protocol: the timing protocol; the default for networks if None.
        runs: least number of timed runs: sessions are added until there are as many; those of the protocol if None.
        progress: callback, invoked after every visit.

    Raises:
        BundleError: its program cannot be run, or its outputs differ on the machine.
        InvalidValue: the number of runs is not positive; the machine does not have the cores that its recipe needs.
        RuntimeUnavailable: its runtime cannot run on the machine.
        TooNoisy: the figures cannot be trusted.
    """
    recipe: Recipe = bundle.manifest.recipe
    if runs is not None and runs < 1:
        raise InvalidValue(f"the number of timed runs must be positive, not {runs}; p99 needs {runs_for(0.99):,}")
    machine = machine or LocalMachine()
    machine.cores(recipe)  # raises before the outputs are computed
    check_outputs(bundle, machine)
    programs, how = {"bundle": bundle.compiled}, protocol or usual().networks
    found = time_bundle(programs, bundle, machine, how, runs=runs or 0, progress=progress)
    found.measured.require_steady()
    return summarise(bundle, device, found, "bundle")


def time_bundle(
    programs: Mapping[str, Path],
    bundle: Bundle,
    machine: Machine,
    protocol: Protocol,
    *,
    runs: int = 0,
    what: str = "timing",
    progress: Progress = silent,
) -> Among:
    """Time a bundle and other programs among its reference programs.

    Args:
        programs: name -> file; the bundle's is ``bundle``.
        bundle: the bundle.
        machine: where they are timed.
        protocol: the timing protocol.
        runs: least number of timed runs of the bundle: sessions are added until there are as many.
        what: description for `progress`.
        progress: callback, invoked after every visit.

    Raises:
        HwnasError: as `hwnas.machines.Machine.time` raises.
    """

    def timed(protocol: Protocol, journal: Journal) -> Among:
        def time(programs: Mapping[str, Program | Path]) -> Measurement:
            return machine.time(
                programs,
                bundle.manifest.recipe,
                protocol,
                reference="bundle",
                journal=journal,
                what=what,
                progress=progress,
            )

        return bench_among(programs, bundle, time)

    return with_runs(timed, "bundle", protocol, runs)


def with_runs(timed: Callable[[Protocol, Journal], Among], name: str, protocol: Protocol, runs: int) -> Among:
    """A measurement with a least number of runs of a program: sessions are added until there are as many.

    Args:
        timed: times the programs by a protocol; visits in the journal are not repeated.
        name: of the program.
        protocol: the protocol.
        runs: least number of its timed runs.

    Raises:
        HwnasError: as `timed` raises.
    """
    with temporary_folder("a benchmark") as folder, Journal(folder / "visits.jsonl", {}) as journal:
        while True:
            found = timed(protocol, journal)
            measured, copies = found.measured, found.copies[name]
            if (done := measured.runs(copies)) >= runs:
                return found
            # The journal has the visits so far, so only the added sessions are timed.
            sessions = math.ceil(runs / (done / measured.passes) / protocol.session_passes)
            sessions = max(sessions, measured.passes // protocol.session_passes + 1)
            protocol = replace(protocol, min_sessions=sessions, max_sessions=max(sessions, protocol.max_sessions))


def bench_among(programs: Mapping[str, Path], bundle: Bundle, time: Time) -> Among:
    """Time programs among the reference programs of a bundle (`hwnas.timing.among.time_among`)."""
    references = {path.name: Reference(program=path, profiled_ms=ms) for path, ms in bundle.references.items()}
    return time_among(programs, references, time)


def summarise(bundle: Bundle, device: Device, found: Among, name: str) -> Benchmark:
    """The benchmark of a bundle from a measurement that includes it as `name`."""
    measured, copies, manifest = found.measured, found.copies[name], bundle.manifest
    p25 = found.p25_ms(name)
    p50, p90 = (measured.quantile_ms(copies, q) for q in (0.5, 0.9))
    predicted_ms = manifest.predicted_ms
    expected_ms = None if predicted_ms is None else found.expected_ms(predicted_ms)
    return Benchmark(
        target=f"{device.name}/{manifest.recipe.name}",
        measured_ms=p25,
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=measured.tail_ms(copies, 0.95),
        p99_ms=measured.tail_ms(copies, 0.99),
        runs=measured.runs(copies),
        images_per_s=1e3 * manifest.recipe.batch / measured.mean_ms(copies),
        batch=manifest.recipe.batch,
        predicted_ms=predicted_ms,
        speed=found.speed,
        expected_ms=expected_ms,
        relative_error=None if expected_ms is None else p25 / expected_ms - 1,
        budget_ms=manifest.budget_ms,
        spread=measured.spread,
        too_noisy=measured.too_noisy,
        cores=measured.held.text,
        cores_note=measured.held.note,
    )
