"""Accuracy of networks: evaluated on images, and predicted from the arch.

Each name is loaded when first used, because most import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.accuracy.evaluate import Evaluator, logits, recalibrate
    from hwnas.accuracy.model import AccuracyModel, check_enough, fit_accuracy, fit_on_subnets
    from hwnas.accuracy.oracle import BenchmarkTable, Oracle, read_benchmark
    from hwnas.accuracy.sample import spread_over_cost
    from hwnas.accuracy.validation import Validation
    from hwnas.tasks.base import Metric
    from hwnas.tasks.classification import top1
    from hwnas.tasks.figures import ClassificationFigures, Difference, Interval
    from hwnas.tasks.metrics import difference_of, figures_of, parse_metric

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
        "evaluate": ("Evaluator", "logits", "recalibrate"),
        "model": ("AccuracyModel", "check_enough", "fit_accuracy", "fit_on_subnets"),
        "oracle": ("BenchmarkTable", "Oracle", "read_benchmark"),
        "sample": ("spread_over_cost",),
        "validation": ("Validation",),
        ".tasks.base": ("Metric",),
        ".tasks.classification": ("top1",),
        ".tasks.figures": ("ClassificationFigures", "Difference", "Interval"),
        ".tasks.metrics": ("difference_of", "figures_of", "parse_metric"),
    },
)
