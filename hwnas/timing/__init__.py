"""Timing of programs."""

from hwnas.timing.measurement import Measurement, runs_for
from hwnas.timing.pinning import require_cores
from hwnas.timing.protocol import Protocol, Protocols
from hwnas.timing.timer import time_programs

__all__ = ["Measurement", "Protocol", "Protocols", "require_cores", "runs_for", "time_programs"]
