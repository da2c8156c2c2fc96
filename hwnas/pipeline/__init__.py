"""The whole way, from a job to a deployed and re-timed network.

Each name is loaded when it is first used: the page of a finished run is drawn without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwnas.pipeline.compile import compile_job
    from hwnas.pipeline.job import Job, quickstart_job, read_job
    from hwnas.pipeline.preview import preview_job

__all__ = ["Job", "compile_job", "preview_job", "quickstart_job", "read_job"]

_MODULES = {
    "Job": "job",
    "compile_job": "compile",
    "preview_job": "preview",
    "quickstart_job": "job",
    "read_job": "job",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'hwnas.pipeline' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"hwnas.pipeline.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
