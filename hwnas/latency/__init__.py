"""Latency tables and the model that predicts whole networks from them."""

from hwnas.latency.estimate import estimated_model
from hwnas.latency.model import LatencyModel, load_model
from hwnas.latency.profile import profile
from hwnas.latency.table import LatencyTable, Row, read_table, write_table
from hwnas.latency.validate import ValidationReport, validate

__all__ = [
    "LatencyModel",
    "LatencyTable",
    "Row",
    "ValidationReport",
    "estimated_model",
    "load_model",
    "profile",
    "read_table",
    "validate",
    "write_table",
]
