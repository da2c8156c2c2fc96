"""hwnas: a hardware-aware deployment compiler for neural networks.

The public API consists of `__all__`, ``hwnas.search(...)`` and the use cases of `hwnas.workflows`. Each name is loaded
when first used, so importing hwnas loads neither runtimes nor training libraries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import hwnas.affinity as _affinity  # noqa: F401 - it records this process's cores before torch may bind it to one
from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas import workflows as workflows
    from hwnas.accuracy import Evaluator, fit_accuracy, recalibrate
    from hwnas.data import Data, open_data
    from hwnas.deploy import bench, export, open_bundle, verify
    from hwnas.errors import HwnasError, InfeasibleBudget
    from hwnas.latency import LatencyModel, LatencyTable, load_model, read_table, write_table
    from hwnas.latency.loss import LatencyLoss
    from hwnas.pipeline import Job, compile_job, read_job
    from hwnas.profiling import profile, validate
    from hwnas.search import Problem, solve
    from hwnas.spaces import Arch, Space, make_space
    from hwnas.supernet import Supernet, TrainConfig, extract, load_supernet, save_supernet, train
    from hwnas.targets import Device, Recipe, Target, resolve_target
    from hwnas.workflows import search as search
    from hwnas.workflows import study, sweep

__all__ = [
    "Arch",
    "Data",
    "Device",
    "Evaluator",
    "HwnasError",
    "InfeasibleBudget",
    "Job",
    "LatencyLoss",
    "LatencyModel",
    "LatencyTable",
    "Problem",
    "Recipe",
    "Space",
    "Supernet",
    "Target",
    "TrainConfig",
    "bench",
    "compile_job",
    "export",
    "extract",
    "fit_accuracy",
    "load_model",
    "load_supernet",
    "make_space",
    "open_bundle",
    "open_data",
    "profile",
    "read_job",
    "read_table",
    "recalibrate",
    "resolve_target",
    "save_supernet",
    "solve",
    "study",
    "sweep",
    "train",
    "validate",
    "verify",
    "write_table",
]

_EXPORTS = {
    "accuracy": ("Evaluator", "fit_accuracy", "recalibrate"),
    "data": ("Data", "open_data"),
    "deploy": ("bench", "export", "open_bundle", "verify"),
    "errors": ("HwnasError", "InfeasibleBudget"),
    "latency": (
        "LatencyModel",
        "LatencyTable",
        "load_model",
        "read_table",
        "write_table",
    ),
    "latency.loss": ("LatencyLoss",),
    "pipeline": ("Job", "compile_job", "read_job"),
    "profiling": ("profile", "validate"),
    "search": ("Problem", "solve"),
    "spaces": ("Arch", "Space", "make_space"),
    "supernet": ("Supernet", "TrainConfig", "extract", "load_supernet", "save_supernet", "train"),
    "targets": ("Device", "Recipe", "Target", "resolve_target"),
    "workflows": ("study", "sweep"),
}
_PACKAGES = ("search", "workflows")  # the first is callable

_load = lazily(__name__, _EXPORTS)


def __getattr__(name: str) -> object:
    return importlib.import_module(f"{__name__}.{name}") if name in _PACKAGES else _load(name)


def __dir__() -> list[str]:
    return __all__
