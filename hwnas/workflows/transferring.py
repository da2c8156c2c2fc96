"""A new target from the tables of others and a few whole-network measurements."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, TableError
from hwnas.files import only_one, write_whole
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.inputs import Place
from hwnas.workflows.transfer_answers import MethodFigures, NextAnswer, TransferAnswer

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.latency.transfer import Choice, Known, Posterior
    from hwnas.latency.whole import WholeNetworks
    from hwnas.machines import Machine
    from hwnas.spaces import Space
    from hwnas.targets import Target
    from hwnas.timing.protocol import Protocols

CONFIDENCE = 0.9
_DEVICES = "devices/"


def source_tables(patterns: Sequence[str], *, without: str | None = None) -> list[LatencyTable]:
    """The tables that patterns name.

    Args:
        patterns: ``device/recipe`` with wildcards, ``devices/PATTERN`` for all recipes of devices, a folder of tables,
            or a table's CSV file.
        without: name of the target that is not a source.

    Raises:
        TableError: a pattern matches no table.
    """
    from hwnas.latency.table import read_table_file
    from hwnas.targets import tables

    known = {f"{found.device}/{found.recipe}": found.path for found in tables()}
    paths: dict[Path, None] = {}
    for pattern in patterns:
        place = Path(pattern)
        if pattern.endswith(".csv"):
            found = [place]
        elif place.is_dir() and not pattern.startswith(_DEVICES):
            found = sorted(place.glob("*/*.csv")) or sorted(place.glob("*.csv"))
        else:
            wanted = f"{pattern.removeprefix(_DEVICES)}/*" if pattern.startswith(_DEVICES) else pattern
            found = [path for name, path in sorted(known.items()) if fnmatch.fnmatchcase(name, wanted)]
        if not found:
            raise TableError(
                f"--from {pattern!r} matches no latency table; `hwnas tables list` shows the known ones. Name "
                "device/recipe (with wildcards), a folder of tables, or a table's CSV file"
            )
        paths |= dict.fromkeys(found)
    return [table for table in map(read_table_file, paths) if table.target.name != without]


def transfer(
    space: str | Space,
    target: str | Target,
    sources: Sequence[str],
    measurements: Place,
    *,
    column: str | None = None,
    method: str | None = None,
    tables: Place | None = None,
    replace: bool = False,
) -> TransferAnswer:
    """Write the table of a new target, from the tables of others and a few measured networks.

    Args:
        space: of the networks, or its name.
        target: ``device/recipe``, which has no measured table.
        sources: patterns of tables (`source_tables`).
        measurements: CSV file of networks and latencies (`hwnas.latency.whole`).
        column: of the latencies in that file.
        method: one of `hwnas.latency.transfer.METHODS`; chosen by leaving out one device after the other if None.
        tables: folder of latency tables; the user's data folder or ``$HWNAS_HOME`` if None.
        replace: drop an older table that was not transferred.

    Raises:
        UnknownName, InvalidValue: a name or a measurement is invalid.
        TableError: a file cannot be read, or no source has the space.
        OutputError: the table cannot be written.
    """
    from hwnas.latency.transfer.tables import checked, common_space, known_of
    from hwnas.latency.whole import read_networks

    wanted, chosen = inputs.target_of(target), inputs.space_of(space)
    found = source_tables(sources, without=wanted.name)
    whole = common_space(found, chosen)
    known = known_of(found, whole)
    measured = checked(read_networks(Path(measurements), whole, column), known, whole)
    return _write(known, measured, wanted, method, tables, replace=replace)


def _write(
    known: Known, measured: WholeNetworks, target: Target, method: str | None, tables: Place | None, *, replace: bool
) -> TransferAnswer:
    from hwnas.latency import load_model, write_table
    from hwnas.latency.table import table_lock
    from hwnas.latency.transfer import choose_method
    from hwnas.latency.transfer.tables import transferred
    from hwnas.targets import writable_home

    choice = choose_method(known, len(measured), methods=_methods(method))
    table, posterior = transferred(known, choice, measured, target)
    path = inputs.table_in(Path(tables) if tables else writable_home() / "latency_tables", target)
    with only_one(table_lock(path), f"the table of {target.name}"):
        if not replace:
            _check_replaced(target, path)
        table = write_table(table, path)
    model = load_model(table, measured.space)
    return _answer(known, choice, posterior, measured, table, model.margin(CONFIDENCE), path)


def _check_replaced(target: Target, path: Path) -> None:
    """Check that a table that is there was transferred: others are not lost without --replace.

    Raises:
        TableMismatch: it was measured or imported.
    """
    from hwnas.latency import read_table
    from hwnas.latency.table import check_origin

    if path.is_file():
        check_origin(read_table(target, path), "transferred")


def _methods(method: str | None) -> list[str] | None:
    from hwnas.errors import UnknownName
    from hwnas.latency.transfer import METHODS

    if method is not None and method not in METHODS:
        raise UnknownName("method of transfer", method, METHODS)
    return None if method is None else [method]


def _answer(
    known: Known,
    choice: Choice,
    posterior: Posterior,
    measured: WholeNetworks,
    table: LatencyTable,
    margin: float,
    path: Path,
) -> TransferAnswer:
    return TransferAnswer(
        target=table.target.name,
        space=measured.space.name,
        sources=[source.name for source in known.sources],
        networks=len(measured),
        method=str(table.manifest.measurement["method"]),
        methods=[MethodFigures(method=t.method.name, spearman=t.rank, mape=t.mape) for t in choice.trials],
        by_source=choice.best.by_source,
        noise=posterior.noise,
        upper_margin=margin,
        rows=len(table.rows),
        table=str(path),
    )


def next_networks(
    space: str | Space,
    sources: Sequence[str],
    *,
    measurements: Place | None = None,
    column: str | None = None,
    count: int = 10,
    budgets_ms: Sequence[float] = (),
    seed: int = 0,
    out: Place | None = None,
) -> NextAnswer:
    """Networks to measure on a new target: a first set without measurements, with them the one that decides most.

    Args:
        space: of the networks, or its name.
        sources: patterns of tables (`source_tables`).
        measurements: CSV file of the present measurements; None before the first.
        column: of the latencies in that file.
        count: size of the first set.
        budgets_ms: latency budgets of the decision, for which the number of MACs stands for the quality of a network.
        seed: of the candidates.
        out: CSV file for the networks, with an empty column of latencies.

    Raises:
        UnknownName, InvalidValue: a name or a value is invalid.
        TableError: a file cannot be read, or no source has the space.
        OutputError: the file cannot be written.
    """
    import numpy as np

    from hwnas.latency.transfer import Measured, choose, choose_method
    from hwnas.latency.transfer.decision import decide
    from hwnas.latency.transfer.tables import candidates, checked, common_space, known_of
    from hwnas.latency.transfer.terms import op_terms
    from hwnas.latency.whole import networks_csv, read_networks

    chosen = inputs.space_of(space)
    taken = source_tables(sources)
    whole = common_space(taken, chosen)
    known = known_of(taken, whole)
    codes, terms = candidates(chosen, whole, seed=seed)
    found: dict[str, dict[str, int | str] | None] = {}
    share = None
    if measurements is None:
        rows = choose(known, terms, count, seed=seed).tolist()
    else:
        measured = checked(read_networks(Path(measurements), whole, column), known, whole)
        seen = Measured(terms=op_terms(whole, measured.codes), latency_ms=measured.latency_ms)
        posterior, _ = choose_method(known, len(measured)).fit(known, seen)
        done = {code.tobytes() for code in measured.codes}
        before = [i for i, code in enumerate(codes) if code.tobytes() in done]
        decision = decide(
            posterior, terms, whole.macs(codes).astype(np.float64), budgets_ms, measured=before, seed=seed
        )
        rows = [] if decision.next is None else [decision.next]
        archs = {row: dict(whole.decode(codes[[row]])[0]) for row in decision.found if row >= 0}
        found = {f"{ms:g}": archs.get(row) for ms, row in zip(budgets_ms, decision.found, strict=True)}
        share = decision.share
    if out is not None:
        write_whole(Path(out), networks_csv(whole, codes[rows]))
    return NextAnswer(
        space=whole.name,
        sources=[source.name for source in known.sources],
        networks=[dict(arch) for arch in whole.decode(codes[rows])],
        found=found,
        share=share,
        out=None if out is None else str(out),
    )


def profile_few_shot(
    space: str | Space,
    target: str | Target,
    sources: Sequence[str],
    *,
    count: int = 10,
    tables: Place | None = None,
    replace: bool = False,
    machine: Machine | None = None,
    protocols: Protocols | None = None,
    progress: Progress = silent,
) -> TransferAnswer:
    """Time a few chosen networks on the target's machine, and write its table by transfer.

    A killed run resumes from its journal.

    Args:
        space: of the networks, or its name.
        target: ``device/recipe``; its device must be the machine.
        sources: patterns of tables (`source_tables`).
        count: networks to time.
        tables: folder of latency tables, as for `transfer`.
        replace: drop an older table that was not transferred.
        machine: as for `hwnas.workflows.profile`.
        protocols: the timing protocols; the defaults if None.
        progress: callback, invoked after every visit.

    Raises:
        UnknownName, InvalidValue, TableError, RuntimeUnavailable, TooNoisy, OutputError: as for
            `hwnas.workflows.profile` and `transfer`.
    """
    from hwnas.latency.transfer import choose
    from hwnas.latency.transfer.tables import FEWEST, candidates, checked, common_space, known_of
    from hwnas.latency.whole import WholeNetworks
    from hwnas.machines import machine_of
    from hwnas.profiling.whole import time_networks
    from hwnas.targets import writable_home

    if count < FEWEST:
        raise InvalidValue(f"--few-shot needs at least {FEWEST} networks (10 are usual), not {count}")
    wanted, chosen = inputs.target_of(target), inputs.space_of(space)
    found = source_tables(sources, without=wanted.name)
    whole = common_space(found, chosen)
    known = known_of(found, whole)
    codes, terms = candidates(chosen, whole)
    codes = codes[choose(known, terms, count)]
    path = inputs.table_in(Path(tables) if tables else writable_home() / "latency_tables", wanted)
    if not replace:
        _check_replaced(wanted, path)
    journals = path.parent / f".{path.stem}.few-shot"
    timed = time_networks(
        whole,
        wanted,
        codes,
        journals=journals,
        machine=machine or machine_of(wanted),
        protocol=protocols.networks if protocols else None,
        progress=progress,
    )
    measured = WholeNetworks(
        space=whole,
        codes=codes,
        latency_ms=timed.latency_ms,
        repeated=0,
        disagreement=0.0,
        name="timed by hwnas profile --few-shot",
        sha256=timed.digest,
    )
    answer = _write(known, checked(measured, known, whole), wanted, None, tables, replace=replace)
    shutil.rmtree(journals, ignore_errors=True)
    return answer
