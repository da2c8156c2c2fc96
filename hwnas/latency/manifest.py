"""The manifest of a latency table: provenance and accuracy of its figures."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from hwnas.errors import TableCorrupt
from hwnas.files import Spec
from hwnas.spaces import Codes, Domain
from hwnas.spaces.draws import distinct
from hwnas.targets import Target

TableOrigin = Literal["measured", "imported", "transferred"]


class Baseline(Spec):
    """Accuracy of another predictor on the networks of a validation.

    Attributes:
        mape: mean absolute error, as a fraction of the measured latency.
        kendall_tau: rank correlation of prediction and measurement.
    """

    mape: float
    kendall_tau: float


class Validation(Spec):
    """Predictions compared with measurements of networks that the fit did not use, each measured twice.

    Attributes:
        networks: number of networks.
        seed: of their draw.
        mape: mean absolute error over both measurements, as a fraction of the measured latency.
        noise_floor: mean relative difference of the two measurements; an error near it is noise.
        within_5pct, within_10pct: shares of the measurements with at most that error.
        kendall_tau: rank correlation of prediction and measurement, the mean over both.
        kendall_tau_repeat: rank correlation of the two measurements.
        speed: of the machine relative to its speed in the profile, from networks that were measured both times; all
            figures here are corrected for it.
        confidence: of the upper bound.
        below_upper: share of the measurements below the bound; None if the profile has too few networks for a bound.
        upper_margin: the bound's margin over a prediction, as a fraction; None likewise.
        baselines: plain sum of the table, MACs, parameters, gradient boosting -> their accuracy.
        spread: variation of the reference network during the validation (see `hwnas.timing.Measurement.spread`).
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
    """The numbers of a latency model; see `hwnas.latency.context` for their meaning.

    Attributes:
        domain: the space it was fitted on.
        seed: of the draw of the networks below.
        codes: of the calibration networks, if they were chosen and not drawn.
        calibration_ms: measured latencies of the calibration networks.
        terms: name -> coefficient.
        held_out_mape: mean absolute relative error of these networks, each with a fit on the others.
        scores: relative errors of the bound networks, ascending: the worse of two measurements over the prediction,
            minus 1. Upper bounds are derived from them.
        bound_ms: measured latencies of the bound networks in the order of their draw, the worse of two measurements;
            empty in tables of older versions. A refit needs them (`hwnas.profiling.refit`).
        measurement: protocol and stability of the calibration.
        validation: the last validation, if there was one.
    """

    domain: Domain
    seed: int = Field(ge=0)
    calibration_ms: list[PositiveFloat]
    terms: dict[str, float]
    held_out_mape: float
    scores: list[float]
    bound_ms: list[PositiveFloat] = Field(default=[], exclude_if=lambda times: not times)
    codes: list[list[int]] = Field(default=[], exclude_if=lambda codes: not codes)
    measurement: dict[str, str | int | float | bool]
    validation: Validation | None = None

    @property
    def bound_networks(self) -> int:
        """Number of bound networks of the profile; 0 of a fit on chosen networks, whose scores are of other targets."""
        return 0 if self.codes else len(self.bound_ms or self.scores)

    def networks(self) -> Codes:
        """The calibration networks, then the bound networks, as codes of the domain: ``(n, variables)``.

        Raises:
            TableCorrupt: the domain has fewer networks, or the codes are not networks of it, one per latency.
        """
        space, count = self.domain.make(), len(self.calibration_ms) + self.bound_networks
        if self.codes:
            sizes = [len(variable.values) for variable in space.variables]
            fitting = all(
                len(code) == len(sizes) and all(0 <= value < size for value, size in zip(code, sizes, strict=True))
                for code in self.codes
            )
            if not fitting or len(self.codes) != count or self.bound_ms:
                raise TableCorrupt(
                    f"a fit for {space.name} has {len(self.codes)} networks and {count} latencies, or codes that are "
                    f"not networks of the space ({len(sizes)} numbers each); import or transfer the table again"
                )
            return np.array(self.codes, np.uint8)
        if space.size < count:
            raise TableCorrupt(
                f"a fit for {space.name} has {count} networks, but its domain has {space.size}; profile again"
            )
        return distinct(space, count, seed=self.seed)


class Manifest(Spec):
    """``latency_tables/<device>/<recipe>.toml``: the provenance of the table of the same name.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        device, recipe: names of the target's parts.
        origin: measured by hwnas, imported from another table, or transferred from the tables of other targets.
        device_fingerprint: hash of the device's match conditions.
        recipe_hash: of the recipe that the table was made with; a different recipe is rejected.
        csv_sha256: of the table's file.
        date: ISO date of the last measurement or import.
        host: the measured host: CPU, flags, cores, the quota of CPU time if there is one.
        versions: of hwnas, the runtime, torch, Python and the operating system's kernel.
        measurement: protocol, cores and stability of the last profile; of an imported table, the statistic of its
            rows and the source files; of a transferred one, its sources, its method and the measurements.
        fits: latency models, one per domain.
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

    @classmethod
    def of_other_tables(
        cls,
        target: Target,
        origin: Literal["imported", "transferred"],
        measurement: dict[str, str | int | float | bool],
        fits: Sequence[Fit] = (),
    ) -> Manifest:
        """The manifest of a table that hwnas did not measure, as of today."""
        return cls(
            origin=origin,
            device=target.device.name,
            recipe=target.recipe.name,
            device_fingerprint=target.device.fingerprint,
            recipe_hash=target.recipe.hash,
            csv_sha256="",
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            host={},
            versions={"hwnas": version("hwnas")},
            measurement=measurement,
            fits=list(fits),
        )
