from __future__ import annotations

import gc
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import InvalidValue, OutputError, TooNoisy
from hwnas.files import Journal
from hwnas.runtimes import Session
from hwnas.targets import Recipe
from hwnas.timing import Measurement, Protocol, time_programs
from hwnas.timing.protocol import order_of

QUICK = Protocol(visit_ms=0.05, max_runs=5, session_passes=2, max_sessions=3, tolerance=1e9)

Programs = dict[str, Path]


def visits(path: Path) -> list[tuple[int, str]]:
    """Pass and program of each visit, in the order of a journal."""
    keys = [json.loads(line)["key"] for line in path.read_bytes().splitlines()[1:]]
    return [(int(number), name) for number, name in (key.split(" ", 1) for key in keys)]


def samples(path: Path) -> dict[str, list[float]]:
    entries = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    return {entry["key"]: entry["value"] for entry in entries}


# -- what is measured ----------------------------------------------------------------------------------


def test_every_program_is_visited_once_in_every_pass(programs: Programs, recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, {}) as journal:
        measured = time_programs(programs, recipe, QUICK, journal=journal)
    assert measured.passes == 4
    assert list(measured.samples_ms) == list(programs)
    assert measured.reference == "a"
    assert Counter(visits(path)) == {(p, name): 1 for p in range(4) for name in programs}
    for name, passes in measured.samples_ms.items():
        assert passes == [samples(path)[f"{p} {name}"] for p in range(4)]
        assert all(QUICK.min_runs <= len(visit) <= QUICK.max_runs for visit in passes)
        assert all(math.isfinite(ms) and ms > 0 for visit in passes for ms in visit)


def test_passes_are_shuffled_by_the_seed(programs: Programs, recipe: Recipe, tmp_path: Path) -> None:
    orders = {}
    for run, seed in (("first", 0), ("again", 0), ("other", 1)):
        with Journal(tmp_path / run, {}) as journal:
            protocol = Protocol(visit_ms=0.01, tolerance=1e9, session_passes=3, seed=seed)
            time_programs(programs, recipe, protocol, journal=journal)
        orders[run] = visits(tmp_path / run)
    assert orders["first"] == orders["again"] != orders["other"]
    passes = [[name for p, name in orders["first"] if p == number] for number in range(6)]
    assert all(sorted(names) == sorted(programs) for names in passes)
    assert len({tuple(names) for names in passes}) > 1
    assert [p for p, _ in orders["first"]] == sorted(p for p, _ in orders["first"])  # one pass after the other


def test_programs_are_opened_anew_in_every_session_in_a_shuffled_order(
    programs: Programs, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module("hwnas.timing.opened")
    real, names = module.open_session, {path: name for name, path in programs.items()}
    opened: list[Session] = []

    def open_session(program: Path, recipe: Recipe) -> Session:
        opened.append(real(program, recipe))
        return opened[-1]

    def again(session: Session) -> Session:
        opened.append(type(session)(session._program, session.recipe))
        return opened[-1]

    monkeypatch.setattr(module, "open_session", open_session)
    monkeypatch.setattr(Session, "again", again)
    orders = set()
    for seed in (0, 0, 1, 2):
        opened.clear()
        protocol = Protocol(visit_ms=0.01, tolerance=1e9, session_passes=1, seed=seed)
        assert list(time_programs(programs, recipe, protocol).samples_ms) == list(programs)
        order = [names[session._program] for session in opened]
        first, second = order[: len(programs)], order[len(programs) :]
        assert sorted(first) == sorted(second) == sorted(programs)
        assert first != second
        assert not any(session._open for session in opened)
        orders.add((seed, *order))
    assert len(orders) == 3  # the same seed, the same order


def test_the_reference_can_be_chosen(programs: Programs, recipe: Recipe) -> None:
    assert time_programs(programs, recipe, QUICK, reference="d").reference == "d"


@pytest.mark.parametrize(("tolerance", "passes"), [(1e9, 3), (0.0, 7)])
def test_passes_are_added_until_the_quantile_is_stable(
    programs: Programs, recipe: Recipe, tolerance: float, passes: int
) -> None:
    protocol = Protocol(visit_ms=0.01, session_passes=1, min_sessions=3, max_sessions=7, tolerance=tolerance)
    assert time_programs(programs, recipe, protocol).passes == passes


def test_no_session_begins_that_would_end_too_late(
    programs: Programs, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = Protocol(visit_ms=0.01, session_passes=1, max_sessions=9, max_seconds=35.0, tolerance=0.0)
    steady = replace(protocol, max_disagreement=1e9)
    clock = itertools.count(0.0, 10.0)  # each session takes ten seconds
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert time_programs(programs, recipe, steady).passes == 3
    assert time_programs(programs, recipe, replace(steady, max_seconds=0.0)).passes == protocol.min_sessions
    # What could not be trusted gets the sessions that are left.
    assert time_programs(programs, recipe, replace(protocol, max_disagreement=0.0)).passes == protocol.max_sessions


def test_progress_counts_visits_and_ends(programs: Programs, recipe: Recipe) -> None:
    said: list[tuple[str, int, int]] = []
    time_programs(programs, recipe, QUICK, what="timing x", progress=lambda *step: said.append(step))
    total = 6 * len(programs)
    assert said[:-1] == [("timing x", i + 1, total) for i in range(4 * len(programs))]
    assert said[-1] == ("timing x", 4 * len(programs), 4 * len(programs))


# -- what is left behind -------------------------------------------------------------------------------


class Stop(Exception):
    """Stands for Ctrl-C, a failing disk, or anything else that ends a measurement."""


@pytest.mark.parametrize("collects", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_process_is_as_it_was(programs: Programs, recipe: Recipe, collects: bool, fails: bool) -> None:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    meanwhile = set()

    def look(what: str, done: int, total: int) -> None:
        if done < total:  # the last call says that all is over
            held = len(os.sched_getaffinity(0)) if cores is not None else recipe.threads
            meanwhile.add((gc.isenabled(), held))
            if fails and done == 7:
                raise Stop

    was = gc.isenabled()
    try:
        gc.enable() if collects else gc.disable()
        if fails:
            with pytest.raises(Stop):
                time_programs(programs, recipe, QUICK, progress=look)
        else:
            time_programs(programs, recipe, QUICK, progress=look)
        assert gc.isenabled() is collects
    finally:
        gc.enable() if was else gc.disable()
    assert meanwhile == {(False, recipe.threads)}
    if cores is not None:
        assert os.sched_getaffinity(0) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_more_threads_than_cores(programs: Programs, recipe: Recipe) -> None:
    cores = os.sched_getaffinity(0)
    wide = recipe.model_copy(update={"threads": len(cores) + 1})
    with pytest.raises(
        InvalidValue, match=f"uses {len(cores) + 1} threads, but this process may run on {len(cores)} cores only"
    ):
        time_programs(programs, wide, QUICK)
    assert os.sched_getaffinity(0) == cores


# -- going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [1, 5, 13])
def test_an_interrupted_measurement_goes_on(programs: Programs, recipe: Recipe, tmp_path: Path, stop_at: int) -> None:
    path = tmp_path / "j"

    def stop(what: str, done: int, total: int) -> None:
        if done == stop_at:
            raise Stop

    with pytest.raises(Stop), Journal(path, {}) as journal:
        time_programs(programs, recipe, QUICK, journal=journal, progress=stop)
    before = samples(path)
    assert len(before) == stop_at
    with Journal(path, {}) as journal:
        measured = time_programs(programs, recipe, QUICK, journal=journal)
    after = samples(path)
    assert Counter(visits(path)) == {(p, name): 1 for p in range(4) for name in programs}
    assert list(after.items())[:stop_at] == list(before.items())
    for name in programs:
        assert measured.samples_ms[name] == [after[f"{p} {name}"] for p in range(4)]


@pytest.mark.parametrize(
    "value", ["null", '"abc"', "[]", "{}", "3", '["a"]', "[[1.0]]", "[NaN]", "[-1.0]", "[" * 20_000]
)
def test_what_is_no_time_is_measured_anew(programs: Programs, recipe: Recipe, tmp_path: Path, value: str) -> None:
    path = tmp_path / "j"
    with Journal(path, {}) as journal:
        time_programs(programs, recipe, QUICK, journal=journal)
    header, first, *others = path.read_text().splitlines()
    key = json.loads(first)["key"]
    path.write_text("\n".join([header, f'{{"key": "{key}", "value": {value}}}', *others]) + "\n")
    with Journal(path, {}) as journal:
        measured = time_programs(programs, recipe, QUICK, journal=journal)
    assert all(t > 0 for passes in measured.samples_ms.values() for visit in passes for t in visit)


def test_a_finished_measurement_is_not_made_again(programs: Programs, recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, {}) as journal:
        first = time_programs(programs, recipe, QUICK, journal=journal)
    content = path.read_bytes()
    with Journal(path, {}) as journal:
        second = time_programs(programs, recipe, QUICK, journal=journal)
    assert second == first
    assert path.read_bytes() == content


CHILD = """
import sys
from pathlib import Path
from hwnas.files import Journal
from hwnas.targets import Recipe
from hwnas.timing import Protocol, time_programs
recipe = Recipe.model_validate_json(sys.argv[2])
programs = {path.name: path for path in map(Path, sys.argv[3:])}
protocol = Protocol(visit_ms=3.0, max_runs=400, min_sessions=5, max_sessions=5)
with Journal(Path(sys.argv[1]), {"work": 1}) as journal:
    time_programs(programs, recipe, protocol, journal=journal)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_again_and_again_nothing_is_lost_or_done_twice(
    programs: Programs, recipe: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "j"
    command = [sys.executable, "-c", CHILD, str(path), recipe.model_dump_json(by_alias=True)]
    command += [str(program) for program in programs.values()]
    rng = np.random.default_rng()  # a kill may come anywhere; there is no moment that must not pass
    kept: dict[str, list[float]] = {}
    kills = 0
    for _ in range(2):
        with subprocess.Popen(command) as process:
            size = path.stat().st_size if path.exists() else 0
            while process.poll() is None and (not path.exists() or path.stat().st_size <= size + 100):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
        with Journal(path, {"work": 1}) as journal:
            assert list(journal.entries.items())[: len(kept)] == list(kept.items())
            assert len(journal.entries) >= len(kept)
            kept = dict(journal.entries)
    assert kills >= 1
    subprocess.run(command, check=True)
    assert list(samples(path).items())[: len(kept)] == list(kept.items())
    assert Counter(visits(path)) == {(p, program.name): 1 for p in range(40) for program in programs.values()}


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_journal_that_cannot_be_written_ends_the_measurement(
    programs: Programs, recipe: Recipe, tmp_path: Path
) -> None:
    import resource

    path = tmp_path / "j"
    with Journal(path, {}):
        pass
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
    try:
        with pytest.raises(OutputError, match="run the same command again"), Journal(path, {}) as journal:
            time_programs(programs, recipe, QUICK, journal=journal)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert gc.isenabled()


# -- the values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_sessions": 0},
        {"min_sessions": 1, "max_sessions": 1},  # one session cannot be held against another
        {"min_sessions": 5, "max_sessions": 4},
        {"min_runs": 0},
        {"min_runs": 5, "max_runs": 4},
    ],
)
def test_bounds_of_a_protocol(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match=rf"2 <= min <= max sessions .* not .*{next(iter(wrong.values()))} "):
        Protocol(**wrong)


def test_a_session_has_a_pass() -> None:
    with pytest.raises(InvalidValue, match="at least one pass, not 0"):
        Protocol(session_passes=0)


def measurement(**samples_ms: list[list[float]]) -> Measurement:
    return Measurement(samples_ms=samples_ms, reference=next(iter(samples_ms)), protocol=Protocol(session_passes=1))


def test_quantiles_are_of_all_samples() -> None:
    measured = measurement(a=[[1.0, 2.0], [3.0, 4.0], [5.0]], b=[[7.0], [7.0], [7.0]])
    assert measured.passes == 3
    assert [measured.quantile_ms("a", q) for q in (0, 0.25, 0.5, 0.9, 1)] == pytest.approx([1, 2, 3, 4.6, 5])
    assert measured.p25_ms("a") == measured.quantile_ms("a", 0.25)
    assert measured.p25_ms("b") == 7


def test_spread_is_of_the_references_passes() -> None:
    # p25 of the passes: 10, 11, ..., 20; the other program is wild but is not looked at.
    steady = [[float(10 + i)] * 4 for i in range(11)]
    wild = [[float(1 + 100 * (i % 2))] for i in range(11)]
    assert measurement(a=steady, b=wild).spread == pytest.approx((19 - 11) / 15)
    assert measurement(a=[[3.0, 9.0, 9.0, 9.0, 3.0]] * 8).spread == 0


def test_disagreement_is_between_even_and_odd_sessions() -> None:
    apart = [[1.0], [1.1], [1.0], [1.1]]
    same = [[2.0], [2.0], [2.0], [2.0]]
    assert measurement(a=apart).disagreement == pytest.approx(0.1 / 1.05)
    assert measurement(a=same).disagreement == 0
    pairs = Measurement(samples_ms={"a": apart}, reference="a", protocol=Protocol(session_passes=2))
    assert pairs.disagreement == 0
    # The 95% quantile: one of a hundred programs that differs does not hold the others up, ten do.
    assert measurement(a=apart, **{f"s{i}": same for i in range(99)}).disagreement == 0
    assert measurement(**{f"s{i}": apart if i < 10 else same for i in range(100)}).disagreement > 0.09


def test_the_figures_of_even_and_of_odd_sessions() -> None:
    passes = [[1.0], [1.2], [3.0], [3.2], [1.4], [1.6]]  # sessions of two passes: the middle one is the odd one
    pairs = Measurement(samples_ms={"a": passes}, reference="a", protocol=Protocol(session_passes=2))
    even, odd = pairs.halves_ms[:, 0]
    assert even == pytest.approx(np.quantile([1.0, 1.2, 1.4, 1.6], 0.25))
    assert odd == pytest.approx(np.quantile([3.0, 3.2], 0.25))


def test_a_machine_that_is_too_noisy_is_refused_with_the_figure() -> None:
    apart = {"a": [[1.0], [1.1], [1.0], [1.1]]}
    noisy = Measurement(samples_ms=apart, reference="a", protocol=Protocol(session_passes=1, max_disagreement=0.06))
    assert noisy.too_noisy
    with pytest.raises(TooNoisy, match=r"after 4 passes, .* differ by 9\.5% \(at most 6% is accepted\)") as caught:
        noisy.require_steady()
    assert f"varied by {noisy.spread:.1%}" in str(caught.value)
    quiet = Measurement(samples_ms=apart, reference="a", protocol=Protocol(session_passes=1, max_disagreement=0.1))
    assert not quiet.too_noisy
    quiet.require_steady()


# -- drift ---------------------------------------------------------------------------------------------


def drifting(
    factors: np.ndarray, *, programs: int, noise: float, seed: int = 0, runs: int = 12
) -> tuple[Measurement, np.ndarray]:
    """A made-up measurement: own time of a program, times its visit's factor, times noise; and the own times.

    The factors are those of all visits as they follow each other, ``(passes * programs,)``.
    """
    rng = np.random.default_rng(seed)
    own = np.exp(rng.uniform(np.log(0.003), np.log(2.0), programs))
    of_visit = factors.reshape(-1, programs)
    samples: dict[str, list[list[float]]] = {f"p{i}": [[]] * len(of_visit) for i in range(programs)}
    for p, row in enumerate(of_visit):
        for factor, i in zip(row, order_of(Protocol(), p, programs), strict=True):
            samples[f"p{i}"][p] = (own[i] * factor * (1 + noise * rng.standard_normal(runs))).tolist()
    return Measurement(samples_ms=samples, reference="p0", protocol=Protocol()), own


def wandering(visits: int, seed: int) -> np.ndarray:
    """Factors of up to 1.3 that rise and fall about once a hundred visits."""
    rng = np.random.default_rng(seed)
    knots = 1 + 0.3 * rng.random(visits // 50 + 2)
    return np.interp(np.arange(visits) / 50, np.arange(len(knots)), knots)


def in_time(drift: np.ndarray) -> np.ndarray:
    """The drift of all visits as they follow each other."""
    return np.concatenate([row[order_of(Protocol(), p, len(row))] for p, row in enumerate(drift)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("programs", [8, 40])
def test_drift_is_found(programs: int, seed: int) -> None:
    factors = wandering(20 * programs, 100 + seed)
    measured, _ = drifting(factors, programs=programs, noise=0.005, seed=seed)
    inner = slice(10, -10)  # at both ends, half of a window is missing
    expected = factors / np.quantile(factors, 0.05)
    np.testing.assert_allclose(in_time(measured.drift)[inner], expected[inner], rtol=0.03)
    assert np.abs(in_time(measured.drift) / expected - 1).mean() < 0.006


@pytest.mark.parametrize("seed", range(5))
def test_figures_do_not_depend_on_the_drift(seed: int) -> None:
    """Visits slowed by 30% and more leave the figures where a steady machine has them, up to one common factor."""
    passes, programs = 20, 30
    visits = passes * programs
    moments = np.arange(visits)
    runs = {
        "steady": np.ones(visits),
        "wandering": wandering(visits, 200 + seed),
        "creeping": np.linspace(1.0, 1.4, visits),
        "stepping": np.where(moments < 0.4 * visits, 1.0, 1.35),
        "alternating": np.where(moments // 40 % 2, 1.5, 1.0),  # not in step with the passes
        "seldom quiet": np.where(moments // 40 % 8, 1.5, 1.0),
    }
    figures = {}
    for name, factors in runs.items():
        measured, own = drifting(factors, programs=programs, noise=0.004, seed=seed)
        figures[name] = np.array([measured.p25_ms(f"p{i}") for i in range(programs)])
        assert measured.disagreement < 0.01
        relative = figures[name] / own
        assert relative.std() / relative.mean() < 0.003
    # A quiet visit is what figures are of: with an eighth of them quiet, they are those of the steady machine.
    for name in ("stepping", "alternating", "seldom quiet"):
        np.testing.assert_allclose(figures[name], figures["steady"], rtol=0.006)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [2, 4, 7])
def test_what_slows_some_more_than_others_spoils_no_figure(share: int, seed: int) -> None:
    """In all visits but one of so many, neighbours slow every program, each by a share of its own."""
    passes, programs = 24, 30
    moments = np.arange(passes * programs)
    quiet = moments // 50 % share == 0
    steady, own = drifting(np.ones(len(moments)), programs=programs, noise=0.004, seed=seed)
    rng = np.random.default_rng(seed)
    slowed = dict(zip(steady.samples_ms, rng.uniform(1.3, 1.7, programs), strict=True))
    samples = {name: [list(s) for s in passes] for name, passes in steady.samples_ms.items()}
    for p in range(passes):
        for place, i in enumerate(order_of(Protocol(), p, programs)):
            if not quiet[p * programs + place]:
                samples[f"p{i}"][p] = [slowed[f"p{i}"] * ms for ms in samples[f"p{i}"][p]]
    measured = Measurement(samples_ms=samples, reference="p0", protocol=Protocol())
    errors = np.array([measured.p25_ms(f"p{i}") for i in range(programs)]) / own
    assert np.abs(errors / np.median(errors) - 1).mean() < 0.006


def test_a_program_disturbed_by_itself_is_no_drift() -> None:
    measured, own = drifting(np.ones(12 * 20), programs=20, noise=0.003)
    disturbed = {name: [list(s) for s in passes] for name, passes in measured.samples_ms.items()}
    for p in (1, 4, 9):
        disturbed["p7"][p] = [2 * ms for ms in disturbed["p7"][p]]
    again = Measurement(samples_ms=disturbed, reference="p0", protocol=Protocol())
    np.testing.assert_allclose(again.drift, 1, atol=0.006)
    assert again.p25_ms("p7") == pytest.approx(own[7], rel=0.005)
    assert all(again.p25_ms(f"p{i}") == pytest.approx(measured.p25_ms(f"p{i}"), rel=1e-3) for i in range(20) if i != 7)


def test_of_few_programs_no_drift_is_taken_out() -> None:
    few, _ = drifting(np.linspace(1.0, 1.5, 10 * 7), programs=7, noise=0.0)
    assert (few.drift == 1).all()
    assert few.p25_ms("p3") == few.quantile_ms("p3", 0.25)
    enough, own = drifting(np.linspace(1.0, 1.5, 10 * 8), programs=8, noise=0.0)
    assert enough.drift.max() > 1.3
    assert enough.quantile_ms("p3", 0.9, steady=True) < 0.9 * enough.quantile_ms("p3", 0.9)
    # Quantiles that are not steady are of what was seen.
    assert enough.quantile_ms("p3", 1.0) == pytest.approx(1.5 * own[3], rel=0.02)
    steady = [enough.quantile_ms("p3", q, steady=True) for q in (0.0, 1.0)]
    assert steady[1] == pytest.approx(steady[0], rel=0.03)


def test_passes_end_when_the_figures_agree(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stop rule on made-up times: 10 programs, noise that even and odd passes disagree on until there are many."""
    module = import_module("hwnas.timing.sampler")
    names = [f"p{i}" for i in range(10)]
    journal = Journal(tmp_path / "j", {})
    rng = np.random.default_rng(0)
    for p in range(40):
        for name in names:
            slow = 1.04 if p < 4 and p % 2 else 1.0  # the first odd passes; later ones outnumber them
            of_program = slow if int(name[1:]) % 2 else 1.0
            journal.record(f"{p} {name}", (of_program * (1 + 1e-4 * rng.standard_normal(8))).tolist())

    def never(*_: object) -> list[float]:
        raise AssertionError("a visit that the journal holds was made again")

    monkeypatch.setattr(module, "visit", never)
    monkeypatch.setattr(import_module("hwnas.timing.opened"), "open_session", Untouched)
    protocol = Protocol(session_passes=1, min_sessions=4, max_sessions=40, tolerance=0.01)
    with journal:
        measured = time_programs({name: tmp_path / name for name in names}, recipe, protocol, journal=journal)
    assert 4 < measured.passes < 40
    assert measured.disagreement < 0.01
    shorter = Measurement(
        samples_ms={name: passes[:-1] for name, passes in measured.samples_ms.items()},
        reference="p0",
        protocol=protocol,
    )
    assert shorter.disagreement >= 0.01


class Untouched:
    """A session that is opened and bound, but never run."""

    shape = (1, 2)

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Untouched:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def threads(self) -> Untouched:
        return self

    def bind(self, image: np.ndarray) -> None:
        assert image.shape == self.shape


def test_summary_says_how_it_was_taken() -> None:
    summary = measurement(a=[[1.0], [1.1], [1.0], [1.1]]).summary()
    assert summary["passes"] == 4
    assert (summary["reference"], summary["reference_ms"]) == ("a", 1.0)
    assert summary["disagreement"] == pytest.approx(0.09524)
    assert summary["drift"] == 0
    assert summary["reference_spread"] == pytest.approx(0.1 / 1.05, rel=0.1)
    assert summary["max_disagreement"] == 0.06
    assert {name: summary[name] for name in ("visit_ms", "warmup_runs", "tolerance", "seed")} == {
        "visit_ms": 3.0,
        "warmup_runs": 2,
        "tolerance": 0.01,
        "seed": 0,
    }
