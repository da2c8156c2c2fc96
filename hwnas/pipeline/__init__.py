"""The whole way, from a job to a deployed and re-timed network."""

from hwnas.pipeline.compile import compile_job
from hwnas.pipeline.job import Job, quickstart_job, read_job
from hwnas.pipeline.preview import preview_job

__all__ = ["Job", "compile_job", "preview_job", "quickstart_job", "read_job"]
