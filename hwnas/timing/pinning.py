"""Pinning of timed threads to cores: checked before a measurement, and applied during it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hwnas.affinity import allowed_cores, binding_words, bound_by, cores_text
from hwnas.errors import InvalidValue
from hwnas.targets import Chosen, Quota, Recipe, Topology, choose_cores, cpu_quota, read_topology, usable_cores


def require_cores(recipe: Recipe) -> Chosen:
    """The cores for timing a recipe: those in the recipe, or those that suit the topology best.

    Empty if the system cannot pin threads (macOS, Windows); drift then shows in the spread.

    Raises:
        InvalidValue: there are fewer cores than threads, a quota allows less CPU time than the threads need, OpenMP
            binds the threads to other cores, or cores of the recipe are not available to this process.
    """
    threads = recipe.threads
    _require_threads(recipe, usable_cores(), cpu_quota(), bound_by())
    if recipe.runtime == "torch" and threads > 1 and (words := binding_words()):
        raise InvalidValue(
            f"{words} makes OpenMP bind the {threads} threads of {recipe.name} to other cores than hwnas pins them to: "
            "unset it before Python starts"
        )
    if not hasattr(os, "sched_setaffinity"):
        if recipe.cores:
            raise InvalidValue(
                f"{recipe.name} sets the cores {cores_text(recipe.cores)}, but this system cannot pin a process: "
                "remove cores from the recipe"
            )
        return Chosen()
    return _chosen(recipe, read_topology(), allowed_cores())


def cores_of(recipe: Recipe, root: Path, allowed: Collection[int]) -> Chosen:
    """As `require_cores`, for a process on a Linux machine whose files are below a root folder.

    Args:
        recipe: of the programs to time.
        root: replaces ``/``: `hwnas.targets.SNAPSHOT` lists the files that are read below it.
        allowed: logical cores that the process may run on.

    Raises:
        InvalidValue: as `require_cores`.
    """
    _require_threads(recipe, len(allowed), cpu_quota(root))
    return _chosen(recipe, read_topology(root), allowed)


def _require_threads(recipe: Recipe, cores: int, quota: Quota | None, why: str = "") -> None:
    threads = recipe.threads
    if threads > cores:
        raise InvalidValue(
            f"the recipe uses {threads} threads, but this process may run on {cores} cores only"
            + (f"; {why}" if why else "")
        )
    if quota and quota.cores < threads:
        raise InvalidValue(
            f"the recipe uses {threads} threads, but a quota limits this process to the CPU time of {quota.cores:.3g} "
            f"cores ({quota.source}): timed programs would be throttled in every period. Raise the quota to {threads} "
            "or more (docker run --cpus, limits.cpu of Kubernetes, CPUQuota of systemd)"
            + (", or use a recipe with fewer threads" if quota.cores >= 1 else "")
        )


def _chosen(recipe: Recipe, topology: Topology, allowed: Collection[int]) -> Chosen:
    if missing := set(recipe.cores or ()) - set(allowed):
        raise InvalidValue(
            f"{recipe.name} is timed on the cores {cores_text(recipe.cores or ())}, but this process may not run on "
            f"{cores_text(missing)}: it may run on {cores_text(allowed)}. Change `cores` in the recipe, or remove it"
        )
    return choose_cores(topology, recipe.cores or allowed, recipe.threads)


@contextmanager
def pinned(held: Chosen) -> Iterator[Collection[int]]:
    """Pin this process to the chosen cores.

    With several threads, existing worker threads of runtimes are pinned, too, because thread pools are reused. Threads
    of Python are not pinned: they wait, or draw the progress bar.

    Yields the cores on which programs may be opened: all, or those that the programs' threads are pinned to.

    Raises:
        InvalidValue: the system rejects the affinity.
    """
    if not held.cores:
        yield set()
        return
    allowed = allowed_cores()
    before: dict[int, set[int]] = {}
    try:
        try:
            for thread in [0, *(_workers() if len(held.cores) > 1 else ())]:
                with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                    before[thread] = os.sched_getaffinity(thread)
                    os.sched_setaffinity(thread, held.cores)
        except OSError as error:
            raise InvalidValue(f"cannot pin this process to the cores {held.text}: {error.strerror}") from error
        yield allowed if len(held.cores) == 1 else set(held.cores)
    finally:
        for thread, cores in before.items():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cores)


def _workers() -> list[int]:
    """Threads of this process that Python did not start, such as those of runtimes."""
    try:
        tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    except OSError:  # no /proc
        return []
    return sorted({*tasks} - {thread.native_id for thread in threading.enumerate()})
