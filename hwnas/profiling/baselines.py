"""Baselines: the simple latency predictors that a latency model has to beat."""

from __future__ import annotations

import numpy as np

from hwnas.latency.model import Floats, LatencyModel
from hwnas.spaces import Codes, Space


def baselines(
    model: LatencyModel, domain: Space, calibration: Codes, calibration_ms: Floats, codes: Codes
) -> dict[str, Floats]:
    """Predictions of the baselines, fitted on the same calibration networks.

    Args:
        model: provides the plain sum and the space of `codes`.
        domain: the space of `calibration`.
        calibration: networks, ``(m, variables)``.
        calibration_ms: their latencies, ``(m,)``.
        codes: networks to predict, ``(n, variables)``.

    Returns:
        ``plain sum``: sum of the table without context terms; ``MACs`` and ``parameters``: linear regression on the
        calibration networks, whose residuals are weighted by the inverse latency; ``gradient boosting``: scikit-learn's
        regressor on MACs, parameters and every variable's value. Each ``(n,)``.
    """
    from sklearn.ensemble import GradientBoostingRegressor  # takes a second to import

    space = model.space
    found = {"plain sum": model.plain(codes)}
    for name, known, wanted in (
        ("MACs", domain.macs(calibration), space.macs(codes)),
        ("parameters", domain.params(calibration), space.params(codes)),
    ):
        slope, intercept = np.polyfit(known, calibration_ms, 1, w=1 / calibration_ms)
        found[name] = np.asarray(slope * wanted + intercept, np.float64)
    regressor = GradientBoostingRegressor(random_state=0)
    regressor.fit(_features(domain, calibration), calibration_ms)
    found["gradient boosting"] = np.asarray(regressor.predict(_features(space, codes)), np.float64)
    return found


def mape(predicted: Floats, measured: Floats) -> float:
    """Mean absolute error of predictions ``(n,)``, as a fraction of the measured values, ``(measurements, n)``."""
    return float(np.abs(predicted / measured - 1).mean())


def tau(predicted: Floats, measured: Floats) -> float:
    """Mean of Kendall's rank correlation of predictions ``(n,)`` with each measurement, ``(measurements, n)``.

    A correlation is 0 if all predictions or all measured values are equal, because then there is no ranking.
    """
    from scipy import stats  # takes half a second to import

    values = [float(stats.kendalltau(predicted, row).statistic) for row in measured]
    return float(np.nan_to_num(values).mean())


def _features(space: Space, codes: Codes) -> Floats:
    """MACs, parameters, and each variable's value, ``(n, features)``; 0 for one without effect.

    A variable whose values are texts has a column for each value, which is 1 where it has it.
    """
    described = [space.describe(arch) for arch in space.decode(codes)]
    columns = [space.macs(codes), space.params(codes)]
    for variable in space.variables:
        found = [one.get(variable.name, 0) for one in described]
        if all(isinstance(value, int) for value in variable.values):
            columns.append(np.array(found, np.float64))
        else:
            columns += [np.array([one == value for one in found], np.float64) for value in variable.values]
    return np.column_stack(columns)
