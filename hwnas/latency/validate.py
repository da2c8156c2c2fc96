"""Validation: predictions against fresh networks, next to what a second measurement would have said."""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass

import numpy as np
from scipy import stats

from hwnas.errors import InvalidValue
from hwnas.latency.manifest import Validation
from hwnas.latency.model import Floats, LatencyModel, explain
from hwnas.latency.profile import calibration_codes, check_host, latencies_ms, lower_ops, time_networks
from hwnas.progress import Progress, silent
from hwnas.spaces import Arch, Codes, Op
from hwnas.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """A validation with its networks.

    Attributes:
        summary: the figures.
        codes: the networks, ``(n, variables)``.
        measured_ms, predicted_ms: ``(n,)`` each.
    """

    summary: Validation
    codes: Codes
    measured_ms: Floats
    predicted_ms: Floats

    def worst(self, model: LatencyModel, n: int = 5) -> list[tuple[Arch, float, dict[str, float]]]:
        """The n worst predicted networks: arch, relative error, and milliseconds of each slot."""
        errors = self.predicted_ms / self.measured_ms - 1
        rows = np.argsort(-np.abs(errors))[:n]
        archs = model.space.decode(self.codes[rows])
        return [(arch, float(errors[row]), explain(model, arch)) for arch, row in zip(archs, rows, strict=True)]


def validate(
    model: LatencyModel, target: Target, *, networks: int = 40, seed: int = 0, progress: Progress = silent
) -> ValidationReport:
    """Measure fresh networks twice and compare: prediction with measurement, and measurement with measurement.

    Networks that the model was calibrated on are never among them.

    Raises:
        InvalidValue: fewer than 2 networks, or the space has not as many fresh ones.
        TableError: the target's device is not this host.
    """
    if networks < 2:
        raise InvalidValue(f"a validation needs at least 2 networks, not {networks}")
    check_host(target)
    codes = _fresh(model, networks, seed)
    space = model.space
    ops: dict[Op, None] = {op: None for arch in space.decode(codes) for _, op in space.ops(arch)}
    programs = lower_ops(list(ops), target, progress)
    runs = [
        time_networks(space, target, codes, programs, what=f"timing networks, {which} time", progress=progress)
        for which in ("first", "second")
    ]
    first, second = (latencies_ms(run) for run in runs)
    predicted = model.predict(codes)
    errors = np.abs(predicted / first - 1)
    return ValidationReport(
        summary=Validation(
            networks=networks,
            seed=seed,
            mape=float(errors.mean()),
            noise_floor=float((np.abs(first - second) / (first + second) * 2).mean()),
            within_5pct=float((errors <= 0.05).mean()),
            within_10pct=float((errors <= 0.10).mean()),
            kendall_tau=_tau(predicted, first),
            kendall_tau_repeat=_tau(second, first),
            plain_sum_mape=float(np.abs(model.plain(codes) / first - 1).mean()),
            spread=max(run.spread for run in runs),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        ),
        codes=codes,
        measured_ms=first,
        predicted_ms=predicted,
    )


def _fresh(model: LatencyModel, networks: int, seed: int) -> Codes:
    """Distinct random networks that are not among those of the calibration."""
    domain = model.fit.domain.make()
    known: set[bytes] = set()
    for arch in domain.decode(calibration_codes(domain, model.fit.networks)):
        # The space may be a part of the domain that was calibrated: its codes count other values.
        with contextlib.suppress(InvalidValue):
            known.add(model.space.encode([arch]).tobytes())
    if model.space.size < networks + len(known):
        raise InvalidValue(
            f"the space has {model.space.size} networks, of which {len(known)} were used for calibration; "
            f"{networks} fresh ones cannot be drawn"
        )
    rows: dict[bytes, np.ndarray] = {}
    draws = networks
    while len(rows) < networks:
        draws *= 2
        for row in model.space.sample(draws, seed=seed):
            if row.tobytes() not in known and len(rows) < networks:
                rows.setdefault(row.tobytes(), row)
    return np.stack(list(rows.values()))


def _tau(a: Floats, b: Floats) -> float:
    return float(stats.kendalltau(a, b).statistic)
