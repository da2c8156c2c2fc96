"""The latency of a user's model, and where its milliseconds go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from hwnas.deploy.benchmark import Benchmark, with_runs
from hwnas.deploy.model_bundle import ModelBundle, check_model_outputs
from hwnas.errors import SpecError, TooNoisy
from hwnas.files import Journal, Spec
from hwnas.latency.kernels.kernel import kernel_of
from hwnas.latency.sources import RooflineSource
from hwnas.lowering import Program
from hwnas.machines import Machine
from hwnas.progress import Progress, silent
from hwnas.runner.program import Layer
from hwnas.runner.signature import Feeds
from hwnas.targets import Target
from hwnas.timing import Measurement
from hwnas.timing.among import Among, time_among
from hwnas.timing.protocol import Protocol, usual

MODEL = "model"
PROFILED_RUNS = 30  # of a profile of layers
_LEAST = 0.1  # share of a layer's measured time that remains without the cost of the profiler


class LayerTime(Spec):
    """A layer of the compiled program.

    Attributes:
        name, kind, detail: in the compiled program; the kind is an operator, or the runtime's name of a fused group.
        ms: mean of the faster half of the profiled runs, without the cost of the profiler (`ModelTiming.profiler_ms`).
        share: of the latency.
        macs: multiply-accumulates; None if the layer has none, or the runtime gives no shapes.
        bytes: of the values and weights that it reads and writes, at 4 bytes each; None without shapes.
    """

    name: str
    kind: str
    detail: str
    ms: float
    share: float
    macs: int | None
    bytes: int | None


class Roofline(Spec):
    """Peaks of a target (`hwnas.latency.sources.RooflineSource`): 10^9 multiply-accumulates and bytes per second."""

    gmacs_per_s: float
    gb_per_s: float

    def reached(self, layer: LayerTime) -> float | None:
        """Share of the roofline that a layer reaches: its time at the peaks, over its time; None without shapes.

        Above 1 where its bytes come from a cache, which is faster than the memory.
        """
        if layer.bytes is None:
            return None
        seconds = max((layer.macs or 0) / (self.gmacs_per_s * 1e9), layer.bytes / (self.gb_per_s * 1e9))
        return 1e3 * seconds / layer.ms


class ModelTiming(Spec):
    """A model under a recipe on a machine.

    Attributes:
        target: ``device/recipe``.
        measured_ms: latency on the quiet machine: p25 of calm visits without drift.
        p50_ms, p90_ms: quantiles of all runs.
        p95_ms, p99_ms: quantiles; None with fewer than 200 and 1,000 timed runs.
        runs: number of timed runs.
        runs_per_s: throughput of one run after the other.
        spread: stability of the machine.
        too_noisy: whether the figures cannot be trusted.
        cores, cores_note: logical cores of the measurement, and caveats about them.
        size_bytes: of the program.
        layers: by decreasing time; empty if the runtime does not report them.
        profiler_ms: what the runtime's profiler adds to each layer, subtracted from it; 0 if the layers' times do not
            exceed the latency; None without layers.
        between_ms: latency that is in no layer: the runtime's work between them; None without layers.
        roofline: peaks of the target; None if they are not known.
    """

    target: str
    measured_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float | None
    p99_ms: float | None
    runs: int
    runs_per_s: float
    spread: float
    too_noisy: bool
    cores: str
    cores_note: str
    size_bytes: int
    layers: list[LayerTime] = Field(default=[])
    profiler_ms: float | None = None
    between_ms: float | None = None
    roofline: Roofline | None = None


def time_model(
    program: Path,
    target: Target,
    machine: Machine,
    protocol: Protocol,
    *,
    feeds: Feeds | None = None,
    runs: int = 0,
    layers: bool = True,
    progress: Progress = silent,
) -> ModelTiming:
    """Time a program among copies of itself, by the estimator of a profile, and its layers.

    Args:
        program: file of the program.
        target: the machine's device and the recipe.
        machine: where it is timed.
        protocol: the timing protocol.
        feeds: its inputs; random ones if None.
        runs: least number of timed runs.
        layers: whether to time the layers, too.
        progress: callback, invoked after every visit.

    Raises:
        HwnasError: as `hwnas.machines.Machine.time` and ``layers`` raise.
    """

    def timed(protocol: Protocol, journal: Journal) -> Among:
        def time(programs: Mapping[str, Program | Path]) -> Measurement:
            return machine.time(
                programs,
                target.recipe,
                protocol,
                journal=journal,
                feeds=feeds,
                what=f"timing {target.recipe.name}",
                progress=progress,
            )

        return time_among({MODEL: program}, {}, time)

    found = with_runs(timed, MODEL, protocol, runs)
    measured, copies = found.measured, found.copies[MODEL]
    p25_ms = found.p25_ms(MODEL)
    profile = machine.layers({MODEL: program}, target.recipe, feeds, runs=PROFILED_RUNS)[MODEL] if layers else None
    by_layer = profile.at_speed_of(p25_ms) if profile else []
    profiler_ms = added_by_profiler([one.ms for one in by_layer], p25_ms)
    times = sorted((_layer(one, profiler_ms, p25_ms) for one in by_layer), key=lambda one: -one.ms)
    return ModelTiming(
        target=target.name,
        measured_ms=p25_ms,
        p50_ms=measured.quantile_ms(copies, 0.5),
        p90_ms=measured.quantile_ms(copies, 0.9),
        p95_ms=measured.tail_ms(copies, 0.95),
        p99_ms=measured.tail_ms(copies, 0.99),
        runs=measured.runs(copies),
        runs_per_s=1e3 / measured.mean_ms(copies),
        spread=measured.spread,
        too_noisy=measured.too_noisy,
        cores=measured.held.text,
        cores_note=measured.held.note,
        size_bytes=program.stat().st_size,
        layers=times,
        profiler_ms=profiler_ms if times else None,
        between_ms=p25_ms - sum(one.ms for one in times) if times else None,
        roofline=roofline_of(target) if times else None,
    )


def bench_model_bundle(
    bundle: ModelBundle,
    target: Target,
    machine: Machine,
    *,
    protocol: Protocol | None = None,
    runs: int = 0,
    progress: Progress = silent,
) -> Benchmark:
    """Time the bundle of a user's model on its recorded inputs, after checking its outputs.

    Args:
        bundle: an opened bundle.
        target: the machine's device, and the bundle's recipe.
        machine: where it is timed.
        protocol: the timing protocol; the default for networks if None.
        runs: least number of timed runs.
        progress: callback, invoked after every visit.

    Raises:
        BundleError: its program cannot be run, or its outputs differ on the machine.
        RuntimeUnavailable: its runtime cannot run on the machine.
        TooNoisy: the figures cannot be trusted.
    """
    check_model_outputs(bundle, machine)
    feeds, _ = bundle.example()
    how, predicted_ms = protocol or usual().networks, bundle.manifest.predicted_ms
    found = time_model(bundle.program, target, machine, how, feeds=feeds, runs=runs, layers=False, progress=progress)
    if found.too_noisy:
        raise TooNoisy(f"the machine was too noisy (spread {found.spread:.1%}): close other programs, and run it again")
    return Benchmark(
        target=target.name,
        **{name: getattr(found, name) for name in ("measured_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "runs")},
        images_per_s=found.runs_per_s,
        batch=1,
        predicted_ms=predicted_ms,
        speed=None,
        expected_ms=predicted_ms,
        relative_error=None if predicted_ms is None else found.measured_ms / predicted_ms - 1,
        budget_ms=None,
        **{name: getattr(found, name) for name in ("spread", "too_noisy", "cores", "cores_note")},
    )


def added_by_profiler(times_ms: Sequence[float], whole_ms: float) -> float:
    """The time that a profiler adds to each layer: a constant, so that the layers' times sum to the latency.

    ONNX Runtime's takes about 2 µs for each node, which is as long as a small node. No layer's time falls below a tenth
    of what was measured. 0 if the sum does not exceed the latency.
    """
    low, high = 0.0, max(times_ms, default=0.0)
    if sum(times_ms) <= whole_ms:
        return 0.0
    for _ in range(60):
        added = (low + high) / 2
        if sum(max(ms - added, ms * _LEAST) for ms in times_ms) > whole_ms:
            low = added
        else:
            high = added
    return high


def _layer(one: Layer, profiler_ms: float, whole_ms: float) -> LayerTime:
    kernel = kernel_of(one)
    ms = max(one.ms - profiler_ms, one.ms * _LEAST)
    return LayerTime(
        name=one.name,
        kind=one.kind,
        detail=one.detail,
        ms=ms,
        share=ms / whole_ms,
        macs=kernel.macs,
        bytes=kernel.bytes or None,
    )


def roofline_of(target: Target) -> Roofline | None:
    """The peaks of a target; None if its device's file does not give them, or for another precision than fp32."""
    if target.recipe.precision != "fp32":
        return None
    try:
        flops_per_s, bytes_per_s = RooflineSource.peaks(target)
    except SpecError:
        return None
    return Roofline(gmacs_per_s=flops_per_s / 2e9, gb_per_s=bytes_per_s / 1e9)
