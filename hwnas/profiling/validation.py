"""Validation: predictions against fresh networks, next to what a second measurement would have said."""

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
from hwnas.profiling.profiler import calibration_codes
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Codes, Op
from hwnas.spaces.draws import distinct
from hwnas.targets import Target
from hwnas.timing.measurement import latencies_ms
from hwnas.timing.protocol import Protocol, usual

CONFIDENCE = 0.95
_TIMES = ("first", "second")
_TILT = 0.1  # how far the slope between then and now is expected to be from 0
_TINY = 1e-12  # networks may all take the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """A validation with its networks.

    Attributes:
        summary: the figures.
        codes: the networks, ``(n, variables)``.
        measured_ms: two measurements, in the conditions that the machine was profiled in (`as_it_was`), ``(2, n)``.
        predicted_ms, upper_ms: predictions and their upper bounds, ``(n,)``; the bound is NaN where the profile has too
            few networks for one.
    """

    summary: Validation
    codes: Codes
    measured_ms: Floats
    predicted_ms: Floats
    upper_ms: Floats

    def worst(self, model: LatencyModel, n: int = 5) -> list[tuple[Arch, float, dict[str, float]]]:
        """The n worst predicted networks: arch, relative error, and milliseconds of each slot."""
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
    """Measure fresh networks twice and compare: prediction with each measurement, and measurement with measurement.

    Networks that the profile measured are never among them. The calibration networks are measured along, each time: the
    machine as a whole is faster or slower from one hour to the next, by as much as they say (`as_it_was`), and that is
    taken out of the figures and reported as `Validation.speed`. What remains is what a prediction can be blamed for.

    Args:
        model: says what is predicted.
        target: its device must be the machine.
        networks: how many fresh ones.
        seed: of their draw.
        programs: folder for the networks' programs meanwhile, where no other process works; the system's folder of
            temporary files if None.
        machine: where the networks are timed; the present host if None.
        protocol: how the networks are timed; the usual one if None.
        progress: callback, invoked after every visit.

    Raises:
        InvalidValue: fewer than 2 networks, or the space has not as many fresh ones.
        TableError: the target's device is not the machine, or the latencies were imported or estimated.
        TooNoisy: the figures cannot be trusted.
        OutputError: a network's program cannot be written.
        OutOfMemory: the memory does not hold even one network.
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
    profiled = calibration_codes(domain, len(fit.calibration_ms), len(fit.scores), seed=fit.seed)
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
    """Latencies of networks as at the profile (ms), the speed over that one, and the reference's spread."""

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
    """Latencies at the machine's speed during the profile, from the networks that were timed then and now.

    A machine that gets less of the shared cache and the memory, because of other load, is slower for all networks, and
    more so for some: on logarithms, the difference between both times is a straight line in the mean of both, in which
    the noise of either is no slope (Bland and Altman, "Statistical methods for assessing agreement", 1986). The slope
    is shrunk as if it were about a tenth (ridge regression), because networks that are all alike do not determine it.

    Args:
        now_ms: networks' latencies now, ``(n,)``.
        calibration_now_ms: of the calibration networks, ``(m,)``.
        calibration_then_ms: the same at the profile, ``(m,)``.
    """
    now, then = np.log(calibration_now_ms), np.log(calibration_then_ms)
    x, y = (now + then) / 2, then - now
    centre, gain = x.mean(), y.mean()
    across, along = (x - centre) @ (x - centre) + _TINY, (x - centre) @ (y - gain)
    noise = (y - gain - along / across * (x - centre)).var()
    tilt = along / (across + noise / _TILT**2)
    return np.asarray(now_ms * np.exp((gain + tilt * (np.log(now_ms) - centre)) / (1 - tilt / 2)), np.float64)


def _upper(model: LatencyModel, codes: Codes) -> Floats:
    """Upper bounds; NaN where the profile measured too few networks for one at `CONFIDENCE`."""
    try:
        return model.predict_upper(codes, CONFIDENCE)
    except InvalidValue:
        return np.full(len(codes), np.nan)


def _fresh(model: LatencyModel, profiled: list[Arch], networks: int, seed: int) -> Codes:
    """Different random networks that are not among those of the profile."""
    space = model.space
    known: set[bytes] = set()
    for arch in profiled:
        # The space may be a part of the domain that was profiled: its codes count other values.
        with contextlib.suppress(InvalidValue):
            known.add(space.encode([arch]).tobytes())
    if space.size < networks + len(known):
        raise InvalidValue(
            f"the space has {space.size} networks, of which {len(known)} were used for the profile; "
            f"{networks} fresh ones cannot be drawn"
        )
    return distinct(space, networks, seed=seed, without=known)
