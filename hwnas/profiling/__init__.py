"""Measurement of a space on a device: its latency table, the fit on whole networks, and the validation of both."""

from hwnas.profiling.estimate import estimated_model
from hwnas.profiling.profiler import profile
from hwnas.profiling.validation import ValidationReport, validate

__all__ = ["ValidationReport", "estimated_model", "profile", "validate"]
