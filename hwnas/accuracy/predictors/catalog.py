"""The predictors by name, and their common interface: checks, scales, and rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from hwnas.accuracy.predictors.base import Fit, Fitted, Floats, Predictor, Sample
from hwnas.accuracy.predictors.structure import cells_of
from hwnas.errors import InvalidValue, PluginError
from hwnas.plugins import Registry, load_object
from hwnas.spaces import Arch, Codes, Space

LEAST = 3  # networks of a fit: with two, every predictor is a line through them
_ROWS = 1000  # networks predicted at a time: bounds the memory of activations and kernels

_HERE = "hwnas.accuracy"
PREDICTORS: dict[str, Predictor] = {
    "stagewise": Predictor(fit=f"{_HERE}.stagewise:fit_stagewise"),
    "ensemble": Predictor(fit=f"{_HERE}.ensemble:fit_ensembles"),
    "gp": Predictor(fit=f"{_HERE}.predictors.gp:fit_gp"),
    "boosting": Predictor(fit=f"{_HERE}.predictors.boosting:fit_boosting"),
    "graph": Predictor(fit=f"{_HERE}.predictors.graph:fit_graph"),
    "lstm": Predictor(fit=f"{_HERE}.predictors.lstm:fit_lstm"),
    "adjacency": Predictor(fit=f"{_HERE}.predictors.mlp:fit_adjacency"),
    "paths": Predictor(fit=f"{_HERE}.predictors.mlp:fit_paths", cells=True),
}
_KNOWN = Registry(
    "predictor",
    "hwnas.predictors",
    PREDICTORS,
    fits=lambda found: isinstance(found, Predictor),
    needs="a hwnas.accuracy.predictors.Predictor",
)


def predictor_names() -> list[str]:
    """Names of the predictors: those of hwnas, then those of plugins."""
    return _KNOWN.names()


def check_predictor(name: str, space: Space) -> None:
    """Check, before long work, that a predictor exists and encodes a space.

    Raises:
        UnknownName: there is no such predictor.
        PluginError: it belongs to a plugin and cannot be loaded.
        InvalidValue: it encodes cells only, and the space has none.
    """
    if _KNOWN[name].cells and not cells_of(space):
        raise InvalidValue(
            f"the predictor {name} encodes cells, and {space.name} has none; use another one: "
            f"{', '.join(each for each in predictor_names() if each != name)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPredictor:
    """A predictor that was fitted on values in any unit.

    Attributes:
        name: of the predictor.
        space: space of the networks.
        inner: predicts scaled values.
        mean, scale: of the values: a value is ``mean + scale * scaled``.
    """

    name: str
    space: Space
    inner: Fitted
    mean: float
    scale: float

    def predict(self, networks: Codes | Sequence[Arch]) -> tuple[Floats, Floats]:
        """Networks -> means and standard deviations of their values, ``(n,)`` each, in the values' unit.

        Args:
            networks: codes ``(n, variables)``, or archs.

        Raises:
            InvalidValue: not networks of the space.
            PluginError: the predictor of a plugin returns something else than finite numbers of that shape.
        """
        codes = coded(self.space, networks)
        means, deviations = np.zeros(len(codes)), np.zeros(len(codes))
        for start in range(0, len(codes), _ROWS):
            rows = slice(start, start + _ROWS)
            mean, deviation = self.inner.predict(codes[rows])
            if np.shape(mean) != np.shape(deviation) or np.shape(mean) != means[rows].shape:
                raise PluginError(
                    f"the predictor {self.name} returns the shapes {np.shape(mean)} and {np.shape(deviation)} for "
                    f"{len(codes[rows])} networks; both should be ({len(codes[rows])},)"
                )
            if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (np.asarray(deviation) >= 0).all()):
                raise PluginError(
                    f"the predictor {self.name} returns means or standard deviations that are NaN, infinite or below 0"
                )
            means[rows], deviations[rows] = mean, deviation
        return self.mean + self.scale * means, self.scale * deviations


def fit_predictor(
    name: str, space: Space, networks: Codes | Sequence[Arch], values: Sequence[float] | Floats, *, seed: int = 0
) -> FittedPredictor:
    """Fit a predictor on networks and their values.

    Args:
        name: one of `predictor_names`.
        space: the space.
        networks: codes ``(n, variables)``, or archs; at least 3.
        values: in any unit, ``(n,)``. Predictors assume errors of equal size: take logarithms of latencies and
            `hwnas.accuracy.stagewise.logit` of accuracies.
        seed: of initial weights and samples.

    Raises:
        UnknownName: there is no such predictor.
        PluginError: it belongs to a plugin and cannot be loaded.
        InvalidValue: fewer than 3 networks, one value per network is not given, a value is NaN or infinite, or the
            predictor does not encode the space.
    """
    codes = coded(space, networks)
    if len(codes) < LEAST:
        raise InvalidValue(f"a predictor needs at least {LEAST} networks with their values, not {len(codes)}")
    [fitted] = fit_predictors(name, space, [(codes, np.asarray(values, np.float64))], seed=seed)
    return fitted


def fit_predictors(name: str, space: Space, samples: Sequence[Sample], *, seed: int = 0) -> list[FittedPredictor]:
    """`fit_predictor` for several samples of any size, which may be faster than one after the other.

    Raises:
        UnknownName, PluginError, InvalidValue: as in `fit_predictor`.
    """
    check_predictor(name, space)
    found = _KNOWN[name].fit
    fit = cast("Fit", load_object(found)) if isinstance(found, str) else found
    scales, scaled = [], []
    for codes, values in samples:
        _check(codes, values)
        mean, deviation = float(values.mean()), float(values.std())
        scale = deviation if deviation > 1e-12 * max(1.0, abs(mean)) else 1.0  # of equal values only rounding is left
        scales.append((mean, scale))
        scaled.append((space.canonical(codes), (values - mean) / scale))
    fitted = fit(space, scaled, seed)
    if len(fitted) != len(samples):
        raise PluginError(f"the predictor {name} returns {len(fitted)} fits for {len(samples)} samples")
    return [
        FittedPredictor(name=name, space=space, inner=inner, mean=mean, scale=scale)
        for inner, (mean, scale) in zip(fitted, scales, strict=True)
    ]


def coded(space: Space, networks: Codes | Sequence[Arch]) -> Codes:
    """Canonical codes ``(n, variables)`` of networks.

    Raises:
        InvalidValue: not networks of the space.
    """
    return space.canonical(networks) if isinstance(networks, np.ndarray) else space.encode(networks)


def _check(codes: Codes, values: Floats) -> None:
    if values.shape != (len(codes),):
        raise InvalidValue(
            f"a predictor needs one value per network, ({len(codes)},), not values of the shape {values.shape}"
        )
    if not np.isfinite(values).all():
        wrong = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InvalidValue(f"the value of network {wrong} is {values[wrong]}; a predictor needs finite values")
