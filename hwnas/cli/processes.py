"""What launchers of processes leave in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping

# What Fabric makes an integer of as soon as it is imported, and ends in a ValueError.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def drop_ranks(environment: MutableMapping[str, str] = os.environ) -> str:
    """Take numbers of processes that are none out of the environment; returns what to say of it, if anything.

    Every launcher writes an integer; an empty or other value is left over from a script.
    """
    found = {name: environment[name] for name in _RANKS if not re.fullmatch(r"[0-9]{1,9}", environment.get(name, "0"))}
    for name in found:
        del environment[name]
    words = ", ".join(f"{name}={value!r}" for name, value in found.items())
    return f"{words} is not the number of a process and is not used" if found else ""
