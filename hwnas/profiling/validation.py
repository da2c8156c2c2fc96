"""Validation: predictions compared with measurements of fresh networks, each measured twice."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.errors import InvalidValue, TableError
from hwnas.files import temporary_folder
from hwnas.latency.manifest import Baseline, Fit, Validation
from hwnas.latency.model import Floats, LatencyModel, slot_latencies
from hwnas.lowering import Program
from hwnas.lowering.networks import assembled, lower_ops, scratch
from hwnas.machines import LocalMachine, Machine
from hwnas.profiling.baselines import baselines, mape, tau
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Codes, Op
from hwnas.spaces.draws import distinct
from hwnas.targets import Target
from hwnas.timing.measurement import latencies_ms
from hwnas.timing.protocol import Protocol, usual

CONFIDENCE = 0.95
_TIMES = ("first", "second")
_TILT = 0.1  # expected magnitude of the slope in `as_it_was`
_TINY = 1e-12  # avoids a division by 0 if all networks take the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """A validation and its networks.

    Attributes:
        summary: the figures.
        codes: the networks, ``(n, variables)``.
        measured_ms: two measurements, corrected to the machine's speed during the profile (`as_it_was`), ``(2, n)``.
        predicted_ms, upper_ms: predictions and their upper bounds, ``(n,)``; bounds are NaN if the profile has too few
            networks for them.
    """

    summary: Validation
    codes: Codes
    measured_ms: Floats
    predicted_ms: Floats
    upper_ms: Floats

    def worst(self, model: LatencyModel, n: int = 5) -> list[tuple[Arch, float, dict[str, float]]]:
        """The n networks with the largest errors: arch, relative error, and milliseconds of each slot."""
        errors = (self.predicted_ms / self.measured_ms - 1).mean(axis=0)
        rows = np.argsort(-np.abs(errors))[:n]
        archs = model.space.decode(self.codes[rows])
        return [(arch, float(errors[row]), slot_latencies(model, arch)) for arch, row in zip(archs, rows, strict=True)]


def validate(
    model: LatencyModel,
    target: Target,
    *,
    networks: int = 40,
    seed: int = 0,
    programs: Path | None = None,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> ValidationReport:
    """Measure fresh networks twice, and compare the predictions with each measurement and the two measurements.

    No fresh network was measured by the profile. The calibration networks are measured again in both measurements: the
    speed of the whole machine changes from hour to hour, and they show by how much (`as_it_was`). The figures are
    corrected for this change, which is reported as `Validation.speed`. The remaining errors are those of the model.

    Args:
        model: the latency model.
        target: its device must be the machine.
        networks: number of fresh networks.
        seed: of their draw.
        programs: folder for the networks' temporary programs, which no other process may use; a temporary folder of the
            system if None.
        machine: the machine on which the networks are timed; the present host if None.
        protocol: for the networks; the default if None.
        progress: callback, invoked after every visit.

    Raises:
        InvalidValue: there are fewer than 2 networks, or the space has too few fresh ones.
        TableError: the target's device is not the machine, or the latencies were imported or estimated.
        TooNoisy: the figures cannot be trusted.
        OutputError: a network's program cannot be written.
        OutOfMemory: not even one network fits into memory.
    """
    if networks < 2:
        raise InvalidValue(f"a validation needs at least 2 networks, not {networks}")
    if model.fit is None:
        raise TableError(
            f"the latencies of {model.target} were {model.source} and never calibrated on whole networks: there is "
            "nothing to hold against measurements. Profile a device where hwnas runs: hwnas profile --space "
            f"{model.space.name} --target this/onnxruntime-cpu-fp32"
        )
    machine = machine or LocalMachine()
    machine.check(target)
    fit, space = model.fit, model.space
    domain = fit.domain.make()
    profiled = fit.networks()
    codes = _fresh(model, domain.decode(profiled), networks, seed)
    calibration = profiled[: len(fit.calibration_ms)]
    archs = [(space, arch) for arch in space.decode(codes)] + [(domain, arch) for arch in domain.decode(calibration)]
    ops: dict[Op, None] = {op: None for where, arch in archs for _, op in where.ops(arch)}
    form = machine.form(target.recipe)
    lowered = lower_ops(space, list(ops), form, progress)
    with temporary_folder("a validation") as temporary, scratch(programs or temporary / "programs") as folder:
        fresh = assembled(space, form, codes, lowered, folder / "fresh")
        again = assembled(domain, form, calibration, lowered, folder / "calibration")
        del lowered
        whole = {**fresh, **{f"calibration {name}": program for name, program in again.items()}}
        timings = [
            _measure(
                whole, machine, target, fit, protocol or usual().networks, f"timing networks, {which} time", progress
            )
            for which in _TIMES
        ]
    measured = np.stack([timing.ms for timing in timings])
    predicted, upper = model.predict(codes), _upper(model, codes)
    errors = np.abs(predicted / measured - 1)
    others = baselines(model, domain, calibration, np.array(fit.calibration_ms), codes)
    return ValidationReport(
        summary=Validation(
            networks=networks,
            seed=seed,
            mape=mape(predicted, measured),
            noise_floor=float((np.ptp(measured, axis=0) / measured.mean(axis=0)).mean()),
            within_5pct=float((errors <= 0.05).mean()),
            within_10pct=float((errors <= 0.10).mean()),
            kendall_tau=tau(predicted, measured),
            kendall_tau_repeat=tau(measured[0], measured[1:]),
            speed=timings[0].speed,
            confidence=CONFIDENCE,
            below_upper=None if np.isnan(upper).any() else float((measured <= upper).mean()),
            upper_margin=None if np.isnan(upper).any() else float(np.median(upper / predicted - 1)),
            baselines={n: Baseline(mape=mape(p, measured), kendall_tau=tau(p, measured)) for n, p in others.items()},
            spread=timings[0].spread,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        ),
        codes=codes,
        measured_ms=measured,
        predicted_ms=predicted,
        upper_ms=upper,
    )


@dataclass(frozen=True, slots=True)
class _Timing:
    """Latencies of networks at the profile's speed (ms), the speed relative to it, and the reference's spread."""

    ms: Floats
    speed: float
    spread: float


def _measure(
    programs: Mapping[str, Program | Path],
    machine: Machine,
    target: Target,
    fit: Fit,
    protocol: Protocol,
    what: str,
    progress: Progress,
) -> _Timing:
    timed = machine.time(programs, target.recipe, protocol, what=what, progress=progress)
    timed.require_steady()
    measured = latencies_ms(timed)
    fresh, then = len(programs) - len(fit.calibration_ms), np.array(fit.calibration_ms)
    return _Timing(
        ms=as_it_was(measured[:fresh], measured[fresh:], then),
        speed=float(np.exp(np.log(then / measured[fresh:]).mean())),
        spread=timed.spread,
    )


def as_it_was(now_ms: Floats, calibration_now_ms: Floats, calibration_then_ms: Floats) -> Floats:
    """Latencies corrected to the machine's speed during the profile, by the networks that were timed then and now.

    If other load takes a part of the shared cache and of the memory, all networks are slower, and some more than
    others. The difference of a network's two log-latencies is modelled as linear in their mean, because noise in either
    does not appear as a slope there (Bland and Altman, "Statistical methods for assessing agreement", 1986). Ridge
    regression shrinks the slope, with an expected magnitude of about a tenth, because networks of similar latency do
    not determine it.

    Args:
        now_ms: current latencies of networks, ``(n,)``.
        calibration_now_ms: current latencies of the calibration networks, ``(m,)``.
        calibration_then_ms: their latencies in the profile, ``(m,)``.
    """
    now, then = np.log(calibration_now_ms), np.log(calibration_then_ms)
    x, y = (now + then) / 2, then - now
    centre, gain = x.mean(), y.mean()
    across, along = (x - centre) @ (x - centre) + _TINY, (x - centre) @ (y - gain)
    noise = (y - gain - along / across * (x - centre)).var()
    tilt = along / (across + noise / _TILT**2)
    return np.asarray(now_ms * np.exp((gain + tilt * (np.log(now_ms) - centre)) / (1 - tilt / 2)), np.float64)


def _upper(model: LatencyModel, codes: Codes) -> Floats:
    """Upper bounds; NaN if the profile measured too few networks for a bound at `CONFIDENCE`."""
    try:
        return model.predict_upper(codes, CONFIDENCE)
    except InvalidValue:
        return np.full(len(codes), np.nan)


def _fresh(model: LatencyModel, profiled: list[Arch], networks: int, seed: int) -> Codes:
    """Distinct random networks that the profile did not measure."""
    space = model.space
    known: set[bytes] = set()
    for arch in profiled:
        # The space may be a restriction of the profiled domain, with other indices of values in its codes.
        with contextlib.suppress(InvalidValue):
            known.add(space.encode([arch]).tobytes())
    if space.size < networks + len(known):
        raise InvalidValue(
            f"the space has {space.size} networks, of which {len(known)} were used for the profile; "
            f"{networks} fresh ones cannot be drawn"
        )
    return distinct(space, networks, seed=seed, without=known)
