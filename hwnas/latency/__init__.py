"""Latency tables, and the model that predicts the latency of networks from them."""

from hwnas.latency.model import LatencyModel, load_model, plain_model, slot_latencies
from hwnas.latency.sources import LatencySource
from hwnas.latency.table import LatencyTable, Row, read_table, write_table

__all__ = [
    "LatencyModel",
    "LatencySource",
    "LatencyTable",
    "Row",
    "load_model",
    "plain_model",
    "read_table",
    "slot_latencies",
    "write_table",
]
