"""How a time is taken."""

from hwnas.timing.protocol import Measurement, Protocol, require_cores, time_programs

__all__ = ["Measurement", "Protocol", "require_cores", "time_programs"]
