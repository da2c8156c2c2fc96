"""Accuracy of networks: evaluated on images, and predicted from the arch.

Each name is loaded when first used, because most import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.accuracy.classification import difference_of, figures_of
    from hwnas.accuracy.evaluate import Evaluator, logits, recalibrate
    from hwnas.accuracy.figures import ClassificationFigures, Difference, Interval
    from hwnas.accuracy.metrics import Metric, parse_metric, top1
    from hwnas.accuracy.model import AccuracyModel, check_enough, fit_accuracy, fit_on_subnets
    from hwnas.accuracy.oracle import BenchmarkTable, Oracle, read_benchmark
    from hwnas.accuracy.sample import spread_over_cost
    from hwnas.accuracy.validation import Validation

__all__ = [
    "AccuracyModel",
    "BenchmarkTable",
    "ClassificationFigures",
    "Difference",
    "Evaluator",
    "Interval",
    "Metric",
    "Oracle",
    "Validation",
    "check_enough",
    "difference_of",
    "figures_of",
    "fit_accuracy",
    "fit_on_subnets",
    "logits",
    "parse_metric",
    "read_benchmark",
    "recalibrate",
    "spread_over_cost",
    "top1",
]

__getattr__ = lazily(
    __name__,
    {
        "classification": ("difference_of", "figures_of"),
        "evaluate": ("Evaluator", "logits", "recalibrate"),
        "figures": ("ClassificationFigures", "Difference", "Interval"),
        "metrics": ("Metric", "parse_metric", "top1"),
        "model": ("AccuracyModel", "check_enough", "fit_accuracy", "fit_on_subnets"),
        "oracle": ("BenchmarkTable", "Oracle", "read_benchmark"),
        "sample": ("spread_over_cost",),
        "validation": ("Validation",),
    },
)
