"""Shared by benchmarks of deployed networks: a target of this host, and networks timed on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hwnas.latency import LatencyModel, load_model, read_table, write_table
from hwnas.lowering import Program
from hwnas.profiling import profile
from hwnas.progress import Progress
from hwnas.spaces import Space
from hwnas.targets import Target, resolve_target
from hwnas.timing import Measurement, time_programs
from hwnas.timing.protocol import NETWORKS

ATTEMPTS = 3  # other load may spoil a measurement, which then says so


def profiled(
    space: Space, recipe: str, out: Path, progress: Progress, *, networks: int = 16, bound_networks: int = 24
) -> tuple[Target, LatencyModel]:
    """A target of this host and its latency model, from a table that is measured unless it is there."""
    target = resolve_target(f"this/{recipe}")
    path = out / f"{target.name}.csv"
    if not path.exists():
        table = profile(
            space, target, journals=path.parent, networks=networks, bound_networks=bound_networks, progress=progress
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, path)
    return target, load_model(read_table(target, path), space)


def timed_steadily(programs: Mapping[str, Program | Path], target: Target, progress: Progress) -> Measurement:
    """Programs timed in the same passes, again if the machine was too noisy.

    Raises:
        TooNoisy: each time.
    """
    for _ in range(ATTEMPTS):
        measured = time_programs(programs, target.recipe, NETWORKS, what=f"timing {target.name}", progress=progress)
        print(f"\n{target.recipe.name}: spread {measured.spread:.1%}, too noisy: {measured.too_noisy}")
        if not measured.too_noisy:
            break
    measured.require_steady()
    return measured
