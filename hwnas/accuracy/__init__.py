"""Accuracy of networks: evaluated on images, and predicted from the arch."""

from hwnas.accuracy.evaluate import Evaluator, logits, recalibrate
from hwnas.accuracy.metrics import Metric, parse_metric, top1
from hwnas.accuracy.model import AccuracyModel, check_enough, fit_accuracy, fit_on_subnets
from hwnas.accuracy.oracle import BenchmarkTable, Oracle, read_benchmark
from hwnas.accuracy.sample import spread_over_cost

__all__ = [
    "AccuracyModel",
    "BenchmarkTable",
    "Evaluator",
    "Metric",
    "Oracle",
    "check_enough",
    "fit_accuracy",
    "fit_on_subnets",
    "logits",
    "parse_metric",
    "read_benchmark",
    "recalibrate",
    "spread_over_cost",
    "top1",
]
