"""A new target from the tables of others and a few whole-network measurements."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue, OutputError
from hwnas.files import only_one, write_whole
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.inputs import Place
from hwnas.workflows.older_tables import path_in, table_to_extend
from hwnas.workflows.sources import known_sources
from hwnas.workflows.transfer_answers import CONFIDENCE, Decision, MethodFigures, NextAnswer, TransferAnswer

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.latency.transfer import Choice, Known, Posterior
    from hwnas.latency.whole import WholeNetworks
    from hwnas.machines import Machine
    from hwnas.spaces import Space
    from hwnas.targets import Target
    from hwnas.timing.protocol import Protocols


FIRST = 10  # networks of a first set


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
        replace: drop an older table, instead of adding to one that was transferred.

    Raises:
        UnknownName, InvalidValue: a name or a measurement is invalid.
        TableError: a file cannot be read, no source has the space, or an older table was not transferred.
        OutputError: the table cannot be written, or another process works on it.
    """
    from hwnas.latency.table import table_lock
    from hwnas.latency.transfer.tables import checked
    from hwnas.latency.whole import read_networks

    wanted, chosen = inputs.target_of(target), inputs.space_of(space)
    known, whole = known_sources(sources, chosen, without=wanted.name)
    measured = checked(read_networks(Path(measurements), whole, column), known, whole)
    path = path_in(tables, wanted)
    with only_one(table_lock(path), f"the table of {wanted.name}"):
        old = table_to_extend(wanted, path, "transferred", tables, replace=replace)
        return _write(known, measured, wanted, method, path, old)


def _write(
    known: Known, measured: WholeNetworks, target: Target, method: str | None, path: Path, old: LatencyTable | None
) -> TransferAnswer:
    """Transfer, and write the table, whose file the caller has locked."""
    from hwnas.latency import load_model, write_table
    from hwnas.latency.transfer import choose_method
    from hwnas.latency.transfer.tables import transferred

    choice = choose_method(known, len(measured), methods=_methods(method))
    table, posterior = transferred(known, choice, measured, target, old)
    table = write_table(table, path)
    model = load_model(table, measured.space)
    return _answer(known, choice, posterior, measured, table, model.margin(CONFIDENCE), path)


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
    count: int | None = None,
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
        count: size of the first set; `FIRST` if None.
        budgets_ms: latency budgets of the decision, for which the number of MACs stands for the quality of a network.
        seed: of the candidates.
        out: new CSV file for the networks, with an empty column of latencies; not written without networks.

    Raises:
        UnknownName, InvalidValue: a name or a value is invalid.
        TableError: a file cannot be read, or no source has the space.
        OutputError: the file exists, or cannot be written.
    """
    import numpy as np

    from hwnas.latency.transfer import Measured, choose, choose_method
    from hwnas.latency.transfer.decision import decide
    from hwnas.latency.transfer.tables import candidates, checked
    from hwnas.latency.transfer.terms import op_terms
    from hwnas.latency.whole import networks_csv, read_networks

    if measurements is None and (budgets_ms or column is not None):
        given = "--budget-ms" if budgets_ms else "--column"
        raise InvalidValue(f"{given} is for --measurements: a first set of networks depends on no decision")
    if measurements is not None and count is not None:
        raise InvalidValue("--count is for a first set; with --measurements, one network is chosen at a time")
    if out is not None and Path(out).exists():
        raise OutputError(f"{out} exists, perhaps with measurements that were filled in; name another file with --out")
    chosen = inputs.space_of(space)
    known, whole = known_sources(sources, chosen)
    codes, terms = candidates(chosen, whole, seed=seed)
    found: list[Decision] = []
    share = None
    if measurements is None:
        rows = choose(known, terms, FIRST if count is None else count, seed=seed).tolist()
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
        best = zip(budgets_ms, decision.found, strict=True)
        found = [Decision(budget_ms=ms, arch=archs.get(row)) for ms, row in best]
        share = decision.share
    if out is not None and rows:
        write_whole(Path(out), networks_csv(whole, codes[rows]))
    return NextAnswer(
        space=whole.name,
        sources=[source.name for source in known.sources],
        networks=[dict(arch) for arch in whole.decode(codes[rows])],
        found=found,
        share=share,
        out=str(out) if out is not None and rows else None,
    )


def profile_few_shot(
    space: str | Space,
    target: str | Target,
    sources: Sequence[str],
    *,
    count: int = FIRST,
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
        replace: as for `transfer`.
        machine: as for `hwnas.workflows.profile`.
        protocols: the timing protocols; the defaults if None.
        progress: callback, invoked after every visit.

    Raises:
        UnknownName, InvalidValue, TableError, RuntimeUnavailable, TooNoisy, OutputError: as for
            `hwnas.workflows.profile` and `transfer`.
    """
    from hwnas.latency.table import table_lock
    from hwnas.latency.transfer import choose
    from hwnas.latency.transfer.tables import FEWEST, candidates, checked
    from hwnas.latency.whole import WholeNetworks
    from hwnas.machines import machine_of
    from hwnas.profiling.whole import time_networks

    if count < FEWEST:
        raise InvalidValue(f"--few-shot needs at least {FEWEST} networks (10 are usual), not {count}")
    wanted, chosen = inputs.target_of(target), inputs.space_of(space)
    known, whole = known_sources(sources, chosen, without=wanted.name, option="--like")
    codes, terms = candidates(chosen, whole)
    codes = codes[choose(known, terms, count)]
    path = path_in(tables, wanted)
    journals = path.parent / f".{path.stem}.few-shot"
    with only_one(table_lock(path), f"the table of {wanted.name}"):
        old = table_to_extend(wanted, path, "transferred", tables, replace=replace)
        timed = time_networks(
            whole,
            wanted,
            codes,
            journals=journals,
            machine=machine or machine_of(wanted),
            protocol=protocols.few if protocols else None,
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
        answer = _write(known, checked(measured, known, whole), wanted, None, path, old)
        shutil.rmtree(journals, ignore_errors=True)
    return answer
