"""Latency tables, and the model that predicts the latency of networks from them."""

from hwnas.latency.model import LatencyModel, load_model
from hwnas.latency.table import LatencyTable, Row, read_table, write_table

__all__ = [
    "LatencyModel",
    "LatencyTable",
    "Row",
    "load_model",
    "read_table",
    "write_table",
]
