"""Timing of chosen whole networks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hwnas.latency.model import Floats
from hwnas.lowering.networks import assembled, lower_ops, scratch
from hwnas.machines import Machine
from hwnas.profiling.steady import steadily
from hwnas.progress import Progress, silent
from hwnas.spaces import Codes, Domain, Space
from hwnas.targets import Target
from hwnas.timing import Protocol
from hwnas.timing.measurement import latencies_ms
from hwnas.timing.protocol import usual


@dataclass(frozen=True, kw_only=True)
class TimedNetworks:
    """Latencies of networks.

    Attributes:
        latency_ms: p25, ``(n,)``.
        digest: of the target, the software and the times.
    """

    latency_ms: Floats
    digest: str


def time_networks(
    space: Space,
    target: Target,
    codes: Codes,
    *,
    journals: Path,
    machine: Machine,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> TimedNetworks:
    """Time whole networks in common passes; after a kill, the same call resumes from its journal.

    Args:
        space: of the networks.
        target: its device must be the machine.
        codes: ``(n, variables)``.
        journals: folder for the journal and temporary programs.
        machine: where they are timed.
        protocol: the default if None.
        progress: callback, invoked after every visit.

    Raises:
        TableError: the target's device is not the machine.
        RuntimeUnavailable: the runtime cannot run here.
        TooNoisy: the figures cannot be trusted.
        OutputError: a file cannot be written.
        OutOfMemory: not even one network fits into memory.
    """
    machine.check(target)
    protocol = protocol or usual().few
    form = machine.form(target.recipe)
    subject = {
        "target": target.name,
        "recipe": target.recipe.hash,
        "versions": machine.versions(target),
        "domain": Domain.of(space).model_dump(),
        "codes": codes.tolist(),
    }
    ops = {op: None for arch in space.decode(codes) for _, op in space.ops(arch)}
    programs = lower_ops(space, list(ops), form, progress)
    with scratch(journals / "programs") as folder:
        whole = assembled(space, form, codes, programs, folder)
        del programs
        timed = steadily(
            whole,
            machine,
            target,
            protocol,
            journals / "networks.jsonl",
            subject,
            what="timing networks",
            progress=progress,
        )
    found = latencies_ms(timed)
    how = {"protocol": asdict(protocol), "cores": machine.cores(target.recipe)}
    content = json.dumps({**subject, **how, "latency_ms": found.tolist()}, sort_keys=True)
    return TimedNetworks(latency_ms=found, digest=hashlib.sha256(content.encode()).hexdigest())
