"""Timing: shuffled passes over programs that are reopened in every session, on pinned cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hwnas.errors import MachineError, ProgramCrashed, RuntimeUnavailable
from hwnas.files import Journal
from hwnas.lowering import Program
from hwnas.progress import Progress, silent
from hwnas.runner.signature import Feeds
from hwnas.targets import Chosen, Recipe
from hwnas.timing.measurement import Measurement
from hwnas.timing.opened import opened
from hwnas.timing.pinning import pinned, require_cores
from hwnas.timing.protocol import Protocol, order_of
from hwnas.timing.sampler import Sampler, SamplesHere

LONGEST_MS = 1e9  # of a run; a table has no longer times


def time_programs(
    programs: Mapping[str, Program | Path],
    recipe: Recipe,
    protocol: Protocol,
    *,
    reference: str | None = None,
    journal: Journal | None = None,
    feeds: Feeds | None = None,
    what: str = "timing",
    progress: Progress = silent,
) -> Measurement:
    """Time programs under a recipe, in common passes.

    If not all fit into memory, they are timed in groups: each session draws new groups, and makes its passes over one
    group after the other.

    Args:
        programs: name -> lowered program or its file.
        recipe: defines the runtime and the number of threads; the process is pinned to as many cores
            (`hwnas.timing.pinning.require_cores`).
        protocol: the protocol.
        reference: name of the program that shows the stability of the machine; the first if None.
        journal: record of samples; visits that it contains are not repeated.
        feeds: name of an input -> array, for every program; random inputs if None.
        what: description for `progress`.
        progress: callback, invoked after every visit.

    Raises:
        RuntimeUnavailable: the recipe's runtime is not one that is timed.
        InvalidValue: this process does not have the cores that the recipe needs.
        OutputError: the journal cannot be written.
        OutOfMemory: not even one of the programs fits into memory.
    """
    require_measured(recipe)
    held = require_cores(recipe)
    with pinned(held) as cores, opened(programs, recipe, cores, feeds) as here:
        return take(
            list(programs),
            SamplesHere(here.anew),
            protocol,
            reference=reference,
            journal=journal,
            held=held,
            what=what,
            progress=progress,
        )


def require_measured(recipe: Recipe) -> None:
    """Check that a recipe's runtime is one that is timed.

    Raises:
        RuntimeUnavailable: it is not.
    """
    if not recipe.facts.measured:
        raise RuntimeUnavailable(
            f"nothing can be timed with {recipe.name} (runtime {recipe.runtime}); choose a recipe of a measured "
            "runtime, e.g. onnxruntime-cpu-fp32"
        )


def take(
    names: Sequence[str],
    sampler: Sampler,
    protocol: Protocol,
    *,
    reference: str | None = None,
    journal: Journal | None = None,
    held: Chosen | None = None,
    clock: Callable[[], float] | None = None,
    what: str = "timing",
    progress: Progress = silent,
) -> Measurement:
    """Time programs by a protocol, independent of where they run.

    Args:
        names: of the programs.
        sampler: opens them and runs them.
        protocol: the protocol.
        reference: as for `time_programs`.
        journal: as for `time_programs`.
        held: cores of the programs, for the record.
        clock: clock in seconds for `Protocol.max_seconds`; the system's if None.
        what: description for `progress`.
        progress: callback, invoked after every visit.

    Raises:
        ProgramCrashed: programs ended the process that ran them. The others are timed before, and the journal has them.
    """
    reference, clock = reference or names[0], clock or time.monotonic
    # Invalid entries of the journal, e.g. edited by hand, are measured again.
    visits = {visit: samples for visit, samples in journal.entries.items() if _timed(samples)} if journal else {}
    crashed: dict[str, ProgramCrashed] = {}
    most = protocol.max_sessions * protocol.session_passes * len(names)
    begun = ended = clock()
    for session in range(protocol.max_sessions):
        plan = _plan(names, protocol, session)
        done = session * len(plan)
        for visit, _ in plan:
            if visit in visits:
                done += 1
                progress(what, done, most)
        rng = np.random.default_rng((protocol.seed, session))
        missing = {name for visit, name in plan if visit not in visits} - crashed.keys()
        waiting = [names[i] for i in rng.permutation(len(names)) if names[i] in missing]
        # All at once if they fit into memory; else in groups, which differ in every session.
        while waiting:
            try:
                opened = set(sampler.reopen(waiting, (protocol.seed, session)))
                left = [(visit, name) for visit, name in plan if name in opened and visit not in visits]
                for visit, samples in sampler.visits(left, protocol):
                    if not _timed(samples):
                        raise MachineError(
                            f"the times of the visit {visit!r} are {samples[:3]} ms; they should be positive numbers"
                        )
                    visits[visit] = samples
                    if journal:
                        journal.record(visit, samples)
                    done += 1
                    progress(what, done, most)
            except ProgramCrashed as error:
                crashed[error.program] = error
                opened = {error.program}  # the others of its group are opened again
            waiting = [name for name in waiting if name not in opened]
        if crashed:
            if session + 1 < protocol.min_sessions and len(crashed) < len(names):
                continue
            raise _all_crashed(crashed)
        passes = (session + 1) * protocol.session_passes
        measurement = _measurement(visits, names, reference, protocol, held or Chosen(), passes)
        before, ended = ended, clock()
        # The next session takes about as long as this one.
        late = ended + (ended - before) > begun + protocol.max_seconds
        if session + 1 < protocol.min_sessions:
            continue
        if measurement.disagreement < protocol.tolerance or (late and not measurement.too_noisy):
            break
    done = measurement.passes * len(names)
    progress(what, done, done)
    return measurement


def _all_crashed(crashed: Mapping[str, ProgramCrashed]) -> ProgramCrashed:
    """One error for all programs that crashed."""
    first, *others = crashed.values()
    if not others:
        return first
    return ProgramCrashed(f"{len(crashed)} programs crashed: {'; '.join(map(str, crashed.values()))}", first.program)


def _measurement(
    visits: Mapping[str, list[float]],
    names: Sequence[str],
    reference: str,
    protocol: Protocol,
    held: Chosen,
    passes: int,
) -> Measurement:
    """The recorded visits of the first passes, in chronological order."""
    samples = {name: [visits[f"{p} {name}"] for p in range(passes)] for name in names}
    places = {f"{p} {name}": (p, i) for p in range(passes) for i, name in enumerate(names)}
    order = tuple(places[visit] for visit in visits if visit in places)
    return Measurement(samples_ms=samples, reference=reference, protocol=protocol, held=held, order=order)


def _timed(samples: object) -> bool:
    """Whether a journal entry is a valid visit: some positive times of less than eleven days."""
    times = samples if isinstance(samples, list) else []
    return bool(times) and all(isinstance(t, float) and 0 < t < LONGEST_MS for t in times)


def _plan(names: Sequence[str], protocol: Protocol, session: int) -> list[tuple[str, str]]:
    """The visits of a session in order: the key of each and the program's name."""
    first = session * protocol.session_passes
    passes = range(first, first + protocol.session_passes)
    return [(f"{p} {names[i]}", names[i]) for p in passes for i in order_of(protocol, p, len(names))]
