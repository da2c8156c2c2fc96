"""The cores that this process may run on, whatever OpenMP did to them.

``OMP_PROC_BIND``, ``OMP_PLACES`` and ``GOMP_CPU_AFFINITY`` make libgomp bind the thread that loads it, which is the one
that imports torch or scikit-learn, to the first place, often a single core. The cores are therefore recorded when hwnas
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
    except OSError:  # not Linux: nothing binds there
        return False
    return any(name in mapped for name in _LIBRARIES)


_at_import = _now()
# Without such a variable nothing was bound, and the list of what is mapped need not be read.
_bound_before_import = bool(binding()) and _openmp_is_loaded()


def allowed_cores() -> frozenset[int]:
    """The logical cores that this process may run on; empty where the system does not say (macOS, Windows).

    Where OpenMP has bound this thread to fewer since hwnas was imported, they are those of before.
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
    """Take the variables out of the environment before torch is loaded; returns what to say of it, if anything.

    hwnas places what it times itself, and processes that it starts (training on several devices, workers that load
    images) would inherit the single core.
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
