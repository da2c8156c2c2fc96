"""Predictors: a value of a network, such as its accuracy or its latency, from its code, with an uncertainty.

A predictor is fitted on some networks and their values. It knows the space and nothing of where the values come from:
scores of accuracies and logarithms of latencies are predicted by the same code.
"""

from __future__ import annotations

from hwnas.accuracy.predictors.base import Fitted, Predictor, Sample
from hwnas.accuracy.predictors.catalog import (
    PREDICTORS,
    FittedPredictor,
    check_predictor,
    fit_predictor,
    fit_predictors,
    predictor_names,
)

__all__ = [
    "PREDICTORS",
    "Fitted",
    "FittedPredictor",
    "Predictor",
    "Sample",
    "check_predictor",
    "fit_predictor",
    "fit_predictors",
    "predictor_names",
]
