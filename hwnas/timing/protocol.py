"""The measurement protocol: interleaved passes, drift taken out, low quantiles, pinned threads.

One long run per program drifts by 5% and more as the machine's clock and its neighbours change. Short visits in
shuffled passes let every drift hit all programs alike. What slowed all of them for a moment is then taken out, and a
low quantile over the passes drops what was disturbed by itself. Where its memory happens to lie makes a program faster
or slower for as long as it stays open, some by 8%: so they are opened anew after every few passes.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwnas.errors import InvalidValue, TooNoisy
from hwnas.lowering import Program
from hwnas.progress import Progress, silent
from hwnas.runtimes import Session, open_session, session_class
from hwnas.targets import Journal, Recipe, usable_cores

Call = Callable[[], object]
_FEW = 8
_WINDOW = 15  # visits, about a tenth of a second: neighbours on the machine come and go within a pass
_POLISH = 8  # rounds; it settles after four or five
_QUIET = 0.05  # quantile of the visits' drift: on a busy machine no more than a tenth of the visits may be quiet ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How programs are timed.

    Attributes:
        visit_ms: time spent on a program in one pass.
        min_runs, max_runs: bounds on the timed runs of one visit.
        warmup_runs: runs at the start of each visit that are not counted; they bring the program into the caches.
        session_passes: passes over all programs after which they are opened anew, in another order.
        min_sessions, max_sessions: how often they are opened; at least twice, since even sessions are held against odd
            ones.
        max_seconds: no session beyond the least number is begun that would not end within this time, unless the figures
            could not be trusted without it.
        tolerance: sessions are added until, for 95% of the programs, the figures of the even and of the odd sessions
            differ by less than this fraction.
        max_disagreement: after the last session they may differ by this fraction; otherwise the machine was too noisy.
        seed: of the shuffling and of the inputs.
    """

    visit_ms: float = 3.0
    min_runs: int = 4
    max_runs: int = 60
    warmup_runs: int = 2
    session_passes: int = 8
    min_sessions: int = 2
    max_sessions: int = 4
    max_seconds: float = 600.0
    tolerance: float = 0.01
    max_disagreement: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.min_sessions <= self.max_sessions or not 1 <= self.min_runs <= self.max_runs:
            raise InvalidValue(
                f"a protocol needs 2 <= min <= max sessions and 1 <= min <= max runs, not {self.min_sessions} to "
                f"{self.max_sessions} sessions and {self.min_runs} to {self.max_runs} runs"
            )
        if self.session_passes < 1:
            raise InvalidValue(f"a session has at least one pass, not {self.session_passes}")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured.

    Attributes:
        samples_ms: name of a program -> its samples, one list a pass.
        reference: the program whose times tell how steady the machine was.
        protocol: how it was taken.
    """

    samples_ms: Mapping[str, list[list[float]]]
    reference: str
    protocol: Protocol

    @cached_property
    def drift(self) -> npt.NDArray[np.float64]:
        """What slowed each visit, over a quiet one (the 5% quantile): ``(passes, programs)``.

        A program's time in a visit is taken as its own times what slowed all programs in the moments around it, and the
        two are told apart as in median polish (Tukey, "Exploratory Data Analysis", 1977, chapter 11). Of a few programs
        they cannot be told apart, and no drift is taken out.
        """
        programs = len(self.samples_ms)
        if programs < _FEW:
            return np.ones((self.passes, programs))
        visits = np.log([[np.quantile(s, 0.25) for s in passes] for passes in self.samples_ms.values()]).T
        rows = np.arange(self.passes)[:, None]
        orders = np.stack([_order(self.protocol, p, programs) for p in range(self.passes)])
        around = np.zeros_like(visits)
        for _ in range(_POLISH):
            in_time = (visits - np.median(visits - around, axis=0))[rows, orders].ravel()
            padded = np.pad(in_time, _WINDOW // 2, mode="reflect")
            medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, _WINDOW), axis=1)
            around[rows, orders] = medians.reshape(visits.shape)
        return np.asarray(np.exp(around - np.quantile(around, _QUIET)), np.float64)

    def quantile_ms(self, name: str, q: float, *, steady: bool = False) -> float:
        """A quantile of all samples of a program, in milliseconds.

        Args:
            name: of the program.
            q: between 0 and 1.
            steady: with the drift taken out, as if every visit had been a quiet one.
        """
        passes = self.samples_ms[name]
        factors = self.drift[:, list(self.samples_ms).index(name)] if steady else np.ones(len(passes))
        return _quantile(passes, factors, q)

    def p25_ms(self, name: str) -> float:
        """The figure for prediction: the 25% quantile with the drift taken out, in milliseconds."""
        return self.quantile_ms(name, 0.25, steady=True)

    @property
    def passes(self) -> int:
        """Number of passes."""
        return len(self.samples_ms[self.reference])

    @property
    def spread(self) -> float:
        """How much the reference's p25 varied: (p90 - p10) / p50 over the passes."""
        low, middle, high = np.quantile(
            [np.quantile(s, 0.25) for s in self.samples_ms[self.reference]], [0.1, 0.5, 0.9]
        )
        return float((high - low) / middle)

    @cached_property
    def halves_ms(self) -> npt.NDArray[np.float64]:
        """What `p25_ms` would be with the even sessions alone and with the odd ones alone: ``(2, programs)``."""
        parity = np.arange(self.passes) // self.protocol.session_passes % 2
        found = np.empty((2, len(self.samples_ms)))
        for half in (0, 1):
            rows = np.flatnonzero(parity == half)
            for column, passes in enumerate(self.samples_ms.values()):
                found[half, column] = _quantile([passes[i] for i in rows], self.drift[rows, column], 0.25)
        return found

    @cached_property
    def disagreement(self) -> float:
        """95% quantile over the programs of the relative difference between the even and the odd sessions' figures."""
        even, odd = self.halves_ms
        return float(np.quantile(np.abs(even - odd) / (even + odd) * 2, 0.95))

    @property
    def too_noisy(self) -> bool:
        """Whether the machine was too unsteady for the figures to be trusted."""
        return self.disagreement > self.protocol.max_disagreement

    def require_steady(self) -> None:
        """Refuse figures that cannot be trusted.

        Raises:
            TooNoisy: says by how much they differ.
        """
        if self.too_noisy:
            raise TooNoisy(
                f"the machine is too noisy: after {self.passes} passes, the times of even and odd sessions still "
                f"differ by {self.disagreement:.1%} (at most {self.protocol.max_disagreement:.0%} is accepted), and "
                f"the reference's time varied by {self.spread:.1%}. Nothing was written. Close what else runs on this "
                "machine and run the same command again"
            )

    def summary(self) -> dict[str, str | int | float]:
        """What a manifest records of it."""
        return {
            **asdict(self.protocol),
            "passes": self.passes,
            "disagreement": round(self.disagreement, 5),
            "drift": round(float(self.drift.max() - 1), 5),
            "reference": self.reference,
            "reference_ms": round(self.p25_ms(self.reference), 6),
            "reference_spread": round(self.spread, 5),
        }


def _quantile(passes: list[list[float]], factors: npt.NDArray[np.float64], q: float) -> float:
    return float(np.quantile(np.concatenate([np.divide(s, f) for s, f in zip(passes, factors, strict=True)]), q))


def time_programs(
    programs: Mapping[str, Program | Path],
    recipe: Recipe,
    protocol: Protocol,
    *,
    reference: str | None = None,
    journal: Journal | None = None,
    what: str = "timing",
    progress: Progress = silent,
) -> Measurement:
    """Time programs under a recipe, all in the same passes.

    Args:
        programs: name -> lowered program, or the file of one.
        recipe: says the runtime and the number of threads; the process is pinned to as many cores meanwhile.
        protocol: how.
        reference: name of the program that shows how steady the machine is; the first if None.
        journal: where samples are kept as they come; visits that it already holds are not made again.
        what: said to `progress`.
        progress: told after each visit.

    Raises:
        OutputError: the journal cannot be written.
    """
    names = list(programs)
    reference = reference or names[0]
    # What a person put into a journal by hand is measured anew.
    visits = {visit: samples for visit, samples in journal.entries.items() if _timed(samples)} if journal else {}
    most = protocol.max_sessions * protocol.session_passes * len(names)
    sessions: dict[str, Session] = {}
    with _pinned(recipe.threads) as cores, ExitStack() as opened:
        opened.callback(_close, sessions)
        begun = ended = time.monotonic()
        for session in range(protocol.max_sessions):
            plan = _plan(names, protocol, session)
            calls: dict[str, Call] = {}
            if any(visit not in visits for visit, _ in plan):
                calls = _open(
                    programs, recipe, np.random.default_rng((protocol.seed, session)), sessions, opened, cores
                )
            with _no_garbage_collection():
                for done, (visit, name) in enumerate(plan):
                    if visit not in visits:
                        visits[visit] = _visit(calls[name], protocol)
                        if journal:
                            journal.record(visit, visits[visit])
                    progress(what, session * len(plan) + done + 1, most)
            passes = range((session + 1) * protocol.session_passes)
            samples = {name: [visits[f"{p} {name}"] for p in passes] for name in names}
            measurement = Measurement(samples_ms=samples, reference=reference, protocol=protocol)
            before, ended = ended, time.monotonic()
            # The next one takes about as long as this one did.
            late = ended + (ended - before) > begun + protocol.max_seconds
            if session + 1 < protocol.min_sessions:
                continue
            if measurement.disagreement < protocol.tolerance or (late and not measurement.too_noisy):
                break
    done = measurement.passes * len(names)
    progress(what, done, done)
    return measurement


def _timed(samples: object) -> bool:
    """Whether this is what a visit leaves: some times, finite and positive."""
    times = samples if isinstance(samples, list) else []
    return bool(times) and all(isinstance(t, float) and math.isfinite(t) and t > 0 for t in times)


def _plan(names: Sequence[str], protocol: Protocol, session: int) -> list[tuple[str, str]]:
    """The visits of a session in their order: the key of each, and the program's name."""
    first = session * protocol.session_passes
    passes = range(first, first + protocol.session_passes)
    return [(f"{p} {names[i]}", names[i]) for p in passes for i in _order(protocol, p, len(names))]


def _order(protocol: Protocol, number: int, programs: int) -> npt.NDArray[np.int64]:
    """The programs of a pass in the order in which it visits them: ``(programs,)``."""
    return np.random.default_rng((protocol.seed, number)).permutation(programs)


def _open(
    programs: Mapping[str, Program | Path],
    recipe: Recipe,
    rng: np.random.Generator,
    sessions: dict[str, Session],
    opened: ExitStack,
    cores: Collection[int],
) -> dict[str, Call]:
    """Every program ready to run, opened in random order: where its memory lies depends on what was opened before.

    A session is closed as soon as its program has a new one, so that two of a program are open but for a moment.
    """
    names = list(programs)

    def open_one(name: str) -> str:
        before = sessions.get(name)
        sessions[name] = before.again() if before else open_session(programs[name], recipe)
        if before:
            before.close()
        return name

    calls: dict[str, Call] = {}
    first = not sessions
    with _openers(recipe, cores) as each:
        for name in each(open_one, [names[i] for i in rng.permutation(len(names))]):
            if first and not calls:
                opened.enter_context(sessions[name].threads())
            calls[name] = sessions[name].bind(rng.standard_normal(sessions[name].shape, np.float32))
    return calls


@contextmanager
def _openers(
    recipe: Recipe, cores: Collection[int]
) -> Iterator[Callable[[Callable[[str], str], list[str]], Iterable[str]]]:
    """A ``map`` that opens several programs at once where the runtime can: nothing is timed meanwhile."""
    if not session_class(recipe).opens_in_threads or len(cores) < 2:
        yield map
        return
    pin = partial(os.sched_setaffinity, 0, cores)
    pool = ThreadPoolExecutor(len(cores), initializer=pin)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)


def _close(sessions: Mapping[str, Session]) -> None:
    for session in sessions.values():
        session.close()


def _visit(call: Call, protocol: Protocol) -> list[float]:
    """Samples of one visit, in milliseconds."""
    clock = time.perf_counter_ns
    start = clock()
    for _ in range(protocol.warmup_runs):
        call()
    once_ms = max((clock() - start) / 1e6 / max(protocol.warmup_runs, 1), 1e-6)
    runs = int(np.clip(protocol.visit_ms / once_ms, protocol.min_runs, protocol.max_runs))
    samples = []
    for _ in range(runs):
        start = clock()
        call()
        samples.append((clock() - start) / 1e6)
    return samples


def require_cores(threads: int) -> None:
    """Refuse to time more threads than there are cores for.

    Raises:
        InvalidValue: says how many there are.
    """
    cores = usable_cores()
    if threads > cores:
        raise InvalidValue(f"the recipe uses {threads} threads, but this process may run on {cores} cores only")


@contextmanager
def _pinned(threads: int) -> Iterator[set[int]]:
    """Hold this process to as many cores as it has threads, the last ones: interrupts mostly go to the first.

    Yields the cores on which programs may be opened: all, or those that the programs' own threads are held to.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS and Windows cannot pin; drift then shows in the spread
        yield set()
        return
    require_cores(threads)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[-threads:])
    try:
        yield before if threads == 1 else os.sched_getaffinity(0)
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
