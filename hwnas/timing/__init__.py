"""How a time is taken."""

from hwnas.timing.journal import Journal
from hwnas.timing.protocol import Measurement, Protocol, time_programs

__all__ = ["Journal", "Measurement", "Protocol", "time_programs"]
