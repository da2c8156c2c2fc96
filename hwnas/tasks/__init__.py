"""Tasks: what the labels of images are, and all that depends on it: loss, distillation, metrics, parity figures.

Each name is loaded when first used, because most import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.tasks.base import Metric, Task
    from hwnas.tasks.catalog import TASKS, task_of
    from hwnas.tasks.figures import ClassificationFigures, Difference, Interval
    from hwnas.tasks.metrics import difference_of, figures_of, parse_metric
    from hwnas.tasks.weights import check_fit, class_weights

__all__ = [
    "TASKS",
    "ClassificationFigures",
    "Difference",
    "Interval",
    "Metric",
    "Task",
    "check_fit",
    "class_weights",
    "difference_of",
    "figures_of",
    "parse_metric",
    "task_of",
]

__getattr__ = lazily(
    __name__,
    {
        "base": ("Metric", "Task"),
        "catalog": ("TASKS", "task_of"),
        "figures": ("ClassificationFigures", "Difference", "Interval"),
        "metrics": ("difference_of", "figures_of", "parse_metric"),
        "weights": ("check_fit", "class_weights"),
    },
)
