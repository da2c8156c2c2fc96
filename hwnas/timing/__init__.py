"""How a time is taken."""

from hwnas.timing.protocol import Measurement, Protocol, time_programs

__all__ = ["Measurement", "Protocol", "time_programs"]
