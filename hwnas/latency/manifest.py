"""What stands beside a latency table: where its figures come from and how good they are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt

from hwnas.spaces import Domain
from hwnas.targets import Spec


class Validation(Spec):
    """How predictions compare with measurements of networks that the model never saw.

    Attributes:
        networks: how many.
        seed: they were drawn with.
        mape: mean absolute error, as a fraction of the measured latency.
        noise_floor: mean relative difference of two measurements of these networks, the limit of any predictor.
        within_5pct, within_10pct: shares of networks with at most that error.
        kendall_tau: rank correlation of prediction and measurement.
        kendall_tau_repeat: rank correlation of the two measurements.
        plain_sum_mape: error of the table's plain sum, without context factors.
        spread: how much the reference network varied meanwhile (see `hwnas.timing.Measurement.spread`).
        date: ISO date.
    """

    networks: PositiveInt
    seed: int
    mape: FiniteFloat
    noise_floor: FiniteFloat
    within_5pct: FiniteFloat
    within_10pct: FiniteFloat
    kendall_tau: FiniteFloat
    kendall_tau_repeat: FiniteFloat
    plain_sum_mape: FiniteFloat
    spread: FiniteFloat
    date: str


class Fit(Spec):
    """A latency model as numbers: ``latency = Σ over ops  factor of group · table[op] + overhead``.

    Attributes:
        domain: the space it was fitted on.
        networks: calibration networks.
        seed: they were drawn with.
        overhead_ms: what each op adds in a network (negative: saves).
        factors: context factor of each group of slots.
        residual_mean, residual_std: of the relative error, measured over predicted, when each calibration network is
            predicted by a model fitted on the others.
        measurement: protocol and steadiness of the calibration.
        validation: the last validation, if there was one.
    """

    domain: Domain
    networks: PositiveInt
    seed: int
    overhead_ms: FiniteFloat
    factors: dict[str, PositiveFloat]
    residual_mean: FiniteFloat
    residual_std: FiniteFloat
    measurement: dict[str, str | int | float | bool]
    validation: Validation | None = None


class Manifest(Spec):
    """``latency_tables/<device>/<recipe>.toml``: the provenance of the table beside it.

    Attributes:
        schema_: version of the file's form, ``schema`` in the file.
        device, recipe: names of the target's parts.
        device_fingerprint: of what the device is recognised by.
        recipe_hash: of the recipe that the table was made with; another one is refused.
        csv_sha256: of the table's file.
        date: ISO date of the last measurement.
        host: what was measured on: CPU, flags, cores.
        versions: of hwnas, the runtime, torch, Python and the operating system's kernel.
        measurement: protocol and steadiness of the last profile.
        fits: latency models, one a domain.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    device: str
    recipe: str
    device_fingerprint: str
    recipe_hash: str
    csv_sha256: str
    date: str
    host: dict[str, str | int | list[str]]
    versions: dict[str, str]
    measurement: dict[str, str | int | float | bool]
    fits: list[Fit] = Field(default=[])
