"""How a runner on this machine loads the programs of runtimes that need hwnas: torch, GPUs, plugins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwnas.runner.program import Timed
from hwnas.runtimes import open_session, session_class
from hwnas.targets import Recipe


def load(path: str, settings: Mapping[str, Any]) -> Timed:
    """The session of a program's file under the recipe in the settings."""
    return open_session(Path(path), Recipe.model_validate(settings["recipe"]))


def in_threads(settings: Mapping[str, Any]) -> bool:
    """Whether loading several programs at once is safe and faster."""
    return session_class(Recipe.model_validate(settings["recipe"])).opens_in_threads
