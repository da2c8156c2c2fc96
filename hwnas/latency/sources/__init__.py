"""Where the latency of an op comes from: a table (`hwnas.latency.LatencyTable`), or one of the sources here."""

from hwnas.latency.sources.base import LatencySource, Origin
from hwnas.latency.sources.roofline import RooflineSource, Work

__all__ = ["LatencySource", "Origin", "RooflineSource", "Work"]
