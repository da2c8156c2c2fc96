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
    from hwnas.accuracy import Evaluator, Oracle, fit_accuracy, read_benchmark, recalibrate, spread_over_cost
    from hwnas.accuracy.predictors import fit_predictor
    from hwnas.data import Data, open_data
    from hwnas.deploy import bench, export, open_bundle, verify
    from hwnas.engines import EngineConfig
    from hwnas.errors import HwnasError, InfeasibleBudget
    from hwnas.latency import LatencyModel, LatencyTable, load_model, read_table, slot_latencies, write_table
    from hwnas.latency.loss import LatencyLoss
    from hwnas.pipeline import Job, compile_job, read_job
    from hwnas.profiling import estimated_model, profile, validate
    from hwnas.search import Candidate, Objective, Problem, find_front, latency_objective, parse_budget, resource, solve
    from hwnas.shown_progress import PrintedProgress
    from hwnas.spaces import Arch, Space, make_space
    from hwnas.supernet import Phase, Supernet, TrainConfig, extract, load_supernet, save_supernet, train
    from hwnas.targets import Device, Recipe, Target, resolve_target
    from hwnas.workflows import elastic, hybrid, study, sweep
    from hwnas.workflows import search as search

__all__ = [
    "Arch",
    "Candidate",
    "Data",
    "Device",
    "EngineConfig",
    "Evaluator",
    "HwnasError",
    "InfeasibleBudget",
    "Job",
    "LatencyLoss",
    "LatencyModel",
    "LatencyTable",
    "Objective",
    "Oracle",
    "Phase",
    "PrintedProgress",
    "Problem",
    "Recipe",
    "Space",
    "Supernet",
    "Target",
    "TrainConfig",
    "bench",
    "compile_job",
    "elastic",
    "estimated_model",
    "export",
    "extract",
    "find_front",
    "fit_accuracy",
    "fit_predictor",
    "hybrid",
    "latency_objective",
    "load_model",
    "load_supernet",
    "make_space",
    "open_bundle",
    "open_data",
    "parse_budget",
    "profile",
    "read_benchmark",
    "read_job",
    "read_table",
    "recalibrate",
    "resolve_target",
    "resource",
    "save_supernet",
    "slot_latencies",
    "solve",
    "spread_over_cost",
    "study",
    "sweep",
    "train",
    "validate",
    "verify",
    "write_table",
]

_EXPORTS = {
    "accuracy.predictors": ("fit_predictor",),
    "accuracy": ("Evaluator", "Oracle", "fit_accuracy", "read_benchmark", "recalibrate", "spread_over_cost"),
    "data": ("Data", "open_data"),
    "deploy": ("bench", "export", "open_bundle", "verify"),
    "engines": ("EngineConfig",),
    "errors": ("HwnasError", "InfeasibleBudget"),
    "latency": ("LatencyModel", "LatencyTable", "load_model", "read_table", "slot_latencies", "write_table"),
    "latency.loss": ("LatencyLoss",),
    "pipeline": ("Job", "compile_job", "read_job"),
    "profiling": ("estimated_model", "profile", "validate"),
    "search": (
        "Candidate",
        "Objective",
        "Problem",
        "find_front",
        "latency_objective",
        "parse_budget",
        "resource",
        "solve",
    ),
    "shown_progress": ("PrintedProgress",),
    "spaces": ("Arch", "Space", "make_space"),
    "supernet": ("Phase", "Supernet", "TrainConfig", "extract", "load_supernet", "save_supernet", "train"),
    "targets": ("Device", "Recipe", "Target", "resolve_target"),
    "workflows": ("elastic", "hybrid", "study", "sweep"),
}
_PACKAGES = ("search", "workflows")  # the first is callable

_load = lazily(__name__, _EXPORTS)


def __getattr__(name: str) -> object:
    return importlib.import_module(f"{__name__}.{name}") if name in _PACKAGES else _load(name)


def __dir__() -> list[str]:
    return __all__
