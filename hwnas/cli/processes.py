"""Environment variables of process launchers."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

# Variables that Fabric parses as integers at import; other values raise a ValueError.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def drop_ranks(environment: MutableMapping[str, str] = os.environ) -> str:
    """Remove invalid process numbers from the environment; return a warning about them, or an empty text.

    Every launcher writes an integer; other values are left over from scripts.
    """
    found = {name: environment[name] for name in _RANKS if not re.fullmatch(r"[0-9]{1,9}", environment.get(name, "0"))}
    for name in found:
        del environment[name]
    words = ", ".join(f"{name}={value!r}" for name, value in found.items())
    return f"{words} is not a process number and is ignored" if found else ""
