"""A measurement that resumes from its journal, and counts only if the machine was quiet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from hwnas.files import Journal
from hwnas.lowering import Program
from hwnas.machines import Machine
from hwnas.progress import Progress
from hwnas.targets import Target
from hwnas.timing import Measurement, Protocol


def steadily(
    programs: Mapping[str, Program | Path],
    machine: Machine,
    target: Target,
    protocol: Protocol,
    journal: Path,
    subject: Mapping[str, object],
    *,
    reference: str | None = None,
    what: str,
    progress: Progress,
) -> Measurement:
    """A measurement that resumes from its journal; if it is too noisy, deletes the journal and raises `TooNoisy`."""
    how = {"protocol": asdict(protocol), "cores": machine.cores(target.recipe)}
    with Journal(journal, {**subject, **how}) as record:
        timed = machine.time(
            programs, target.recipe, protocol, reference=reference, journal=record, what=what, progress=progress
        )
    if timed.too_noisy:
        journal.unlink()
    timed.require_steady()
    return timed
