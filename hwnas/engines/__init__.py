"""Engines: where independent work runs, in this process, in processes of this host, or on a Ray cluster.

The caller writes the journal as results arrive, so it decides what is done, whatever becomes of the workers.
"""

from hwnas.engines.base import SERIAL, Engine
from hwnas.engines.catalog import EngineConfig, engine_names, open_engine

__all__ = ["SERIAL", "Engine", "EngineConfig", "engine_names", "open_engine"]
