"""What stands beside a latency table: where its figures come from and how good they are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from hwnas.files import Spec
from hwnas.spaces import Domain

TableOrigin = Literal["measured", "imported"]


class Baseline(Spec):
    """How well another predictor does on the networks of a validation.

    Attributes:
        mape: mean absolute error, as a fraction of the measured latency.
        kendall_tau: rank correlation of prediction and measurement.
    """

    mape: float
    kendall_tau: float


class Validation(Spec):
    """How predictions compare with measurements of networks that the model never saw, each measured twice.

    Attributes:
        networks: how many.
        seed: they were drawn with.
        mape: mean absolute error over both measurements, as a fraction of the measured latency.
        noise_floor: mean relative difference of the two measurements; an error near it is noise.
        within_5pct, within_10pct: shares of the measurements with at most that error.
        kendall_tau: rank correlation of prediction and measurement, the mean over both.
        kendall_tau_repeat: rank correlation of the two measurements.
        speed: of the machine, over its speed when it was profiled, by networks that were measured then and now; taken
            out of all figures here.
        confidence: of the upper bound.
        below_upper: share of the measurements that lie below it; None where the profile has too few networks for a
            bound.
        upper_margin: what it adds to a prediction, as a fraction; None likewise.
        baselines: plain sum of the table, MACs, parameters, gradient boosting -> how they do.
        spread: how much the reference network varied meanwhile (see `hwnas.timing.Measurement.spread`).
        date: ISO date.
    """

    networks: PositiveInt
    seed: int = Field(ge=0)
    mape: float
    noise_floor: float
    within_5pct: float
    within_10pct: float
    kendall_tau: float
    kendall_tau_repeat: float
    speed: PositiveFloat
    confidence: float
    below_upper: float | None = None
    upper_margin: float | None = None
    baselines: dict[str, Baseline]
    spread: float
    date: str


class Fit(Spec):
    """A latency model as numbers; see `hwnas.latency.context` for what they multiply.

    Attributes:
        domain: the space it was fitted on.
        seed: the networks below were drawn with.
        calibration_ms: measured latencies of the networks that the terms were fitted on.
        terms: name -> coefficient.
        held_out_mape: mean absolute relative error of these networks, each under a fit on the others.
        scores: relative errors of networks that the fit never saw, ascending: the worse of two measurements over
            predicted minus 1. Upper bounds are read from them.
        measurement: protocol and steadiness of the calibration.
        validation: the last validation, if there was one.
    """

    domain: Domain
    seed: int = Field(ge=0)
    calibration_ms: list[PositiveFloat]
    terms: dict[str, float]
    held_out_mape: float
    scores: list[float]
    measurement: dict[str, str | int | float | bool]
    validation: Validation | None = None


class Manifest(Spec):
    """``latency_tables/<device>/<recipe>.toml``: the provenance of the table beside it.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        device, recipe: names of the target's parts.
        origin: measured by hwnas, or imported from a table that others measured.
        device_fingerprint: of what the device is recognised by.
        recipe_hash: of the recipe that the table was made with; another one is refused.
        csv_sha256: of the table's file.
        date: ISO date of the last measurement or import.
        host: what was measured on: CPU, flags, cores, the quota of CPU time if there is one.
        versions: of hwnas, the runtime, torch, Python and the operating system's kernel.
        measurement: protocol, cores and steadiness of the last profile; of an imported table, the statistic that its
            rows hold and the files that they are from.
        fits: latency models, one a domain.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    device: str
    recipe: str
    origin: TableOrigin = "measured"
    device_fingerprint: str
    recipe_hash: str
    csv_sha256: str
    date: str
    host: dict[str, str | int | float | list[str]]
    versions: dict[str, str]
    measurement: dict[str, str | int | float | bool]
    fits: list[Fit] = Field(default=[])
