"""The cores that this process may run on, regardless of OpenMP's thread binding.

``OMP_PROC_BIND``, ``OMP_PLACES`` and ``GOMP_CPU_AFFINITY`` make libgomp bind the thread that loads it (the one that
imports torch or scikit-learn) to the first place, often a single core. The cores are therefore recorded when hwnas
is imported, and the command line drops these variables before torch is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path

# OMP_PROC_BIND=false binds nothing, whatever GOMP_CPU_AFFINITY and OMP_PLACES say (seen with torch's libgomp).
_VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
_LIBRARIES = ("libgomp", "libomp", "libiomp")


def binding(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that make OpenMP bind its threads, with their values; empty where there are none."""
    found = {name: environment[name] for name in _VARIABLES if environment.get(name, "").strip()}
    return {} if found.get("OMP_PROC_BIND", "").strip().lower() == "false" else found


def binding_words(environment: Mapping[str, str] = os.environ) -> str:
    """The same as words, e.g. ``OMP_PROC_BIND=true, OMP_PLACES=cores``."""
    return ", ".join(f"{name}={value}" for name, value in binding(environment).items())


def cores_text(cores: Iterable[int]) -> str:
    """Numbers of logical cores as Linux writes them, e.g. ``0-3,8``."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _now() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def _openmp_is_loaded() -> bool:
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux: OpenMP does not bind
        return False
    return any(name in mapped for name in _LIBRARIES)


_at_import = _now()
# Without such a variable nothing was bound, so the list of mapped libraries need not be read.
_bound_before_import = bool(binding()) and _openmp_is_loaded()


def allowed_cores() -> frozenset[int]:
    """The logical cores that this process may run on; empty where the system does not report them (macOS, Windows).

    If OpenMP has bound this thread to fewer cores since hwnas was imported, the earlier cores are returned.
    """
    now = _now()
    return _at_import if binding() and now < _at_import else now


def bound_by() -> str:
    """What bound this thread before hwnas was imported, and how to avoid it; empty where nothing did."""
    if not (_bound_before_import and binding() and len(_at_import) < (os.cpu_count() or 1)):
        return ""
    return (
        f"{binding_words()} bound this process to core {cores_text(_at_import)} when torch was loaded: unset it, or "
        "import hwnas before torch"
    )


def drop_binding(environment: MutableMapping[str, str] = os.environ) -> str:
    """Remove the variables from the environment before torch is loaded; return a warning about it, or None.

    hwnas pins what it times itself, and child processes (training on several devices, workers that load images) would
    inherit the single core.
    """
    found = binding(environment)
    if not found or _openmp_is_loaded():
        return ""
    words = binding_words(environment)
    for name in found:
        del environment[name]
    return (
        f"{words} is not used: it would bind this process to one place once torch is loaded, and hwnas chooses the "
        "cores itself. For other cores start it with `taskset`, or write `cores` into the recipe"
    )
