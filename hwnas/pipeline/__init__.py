"""The pipeline from a job to a deployed and re-timed network.

Each name is loaded when first used, so the page of a finished run is drawn without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.lazy import lazily

if TYPE_CHECKING:
    from hwnas.pipeline.compile import compile_job
    from hwnas.pipeline.job import Job, quickstart_job, read_job
    from hwnas.pipeline.preview import preview_job

__all__ = ["Job", "compile_job", "preview_job", "quickstart_job", "read_job"]

__getattr__ = lazily(
    __name__,
    {
        "compile": ("compile_job",),
        "job": ("Job", "quickstart_job", "read_job"),
        "preview": ("preview_job",),
    },
)
