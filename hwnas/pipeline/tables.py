"""Offer the latency tables of a run to the other verbs."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from pathlib import Path

from hwnas.errors import InvalidValue, OutputError, SpecError, TableError
from hwnas.files import only_one
from hwnas.latency import LatencyTable, read_table, write_table
from hwnas.latency.manifest import Validation
from hwnas.latency.table import check_origin, table_lock
from hwnas.pipeline.target_plan import TargetPlan
from hwnas.targets import detect_host, table_path, writable_home
from hwnas.targets.device import other_machine
from hwnas.workflows.inputs import table_in

log = logging.getLogger(__name__)

TABLES = "latency_tables"  # folder of a run, and of the user's home


def offer_table(plan: TargetPlan, out: Path) -> Path:
    """Write the table of a target with finished profile and validation where other verbs find it.

    The run's own folder of tables, for their option ``--tables``, always gets it. The user's folder gets it as well if
    no figure changes there: it has no table of the target, or one from this machine to which the run only adds ops. A
    table with other figures stays, and so does a shipped one; a warning names both.

    Args:
        plan: of the target.
        out: the run's folder.

    Returns:
        the file in the run's folder.

    Raises:
        OutputError: the run's folder cannot be written.
    """
    context, space = plan.context, plan.context.space
    made = read_table(context.target, plan.profile.folder / "table.csv")
    made = made.with_validation(space, Validation.model_validate(plan.validate.result()["summary"]))
    path = table_in(out / TABLES, context.target)
    made = write_table(made, path)
    try:
        _offer(made, path)
    except (InvalidValue, OutputError, SpecError, TableError) as error:
        log.warning(
            "the other verbs do not find the table of this run by themselves: %s. Use it with: --tables %s",
            str(error).removesuffix("."),
            shlex.quote(str(out / TABLES)),
        )
    return path


def _offer(made: LatencyTable, path: Path) -> None:
    """Write a table into the user's folder.

    Raises:
        TableError: there is a table with other figures, or one that cannot be used.
        SpecError: its manifest is malformed.
        InvalidValue, OutputError: there is no such folder, it cannot be written, or another process measures the table.
    """
    known, yours = table_path(made.target), table_in(writable_home() / TABLES, made.target)
    if yours == path:
        return
    if known is not None and known != yours:
        raise TableError(f"the shipped one, {known}, is found first, and its figures are not mixed with others")
    with only_one(table_lock(yours), f"the table of {made.target.name}"):
        old = read_table(made.target, yours) if yours.is_file() else None
        together = _together(old, made, yours) if old else made
        if old is None or (dict(together.rows), together.manifest.fits) != (dict(old.rows), old.manifest.fits):
            write_table(together, yours)


def _together(old: LatencyTable, made: LatencyTable, place: Path) -> LatencyTable:
    """A table with the rows and fits of another one added.

    Raises:
        TableError: an op has another figure in each, or they are from different machines, runtimes or origins.
    """
    check_origin(old, "measured")
    runtime = made.target.recipe.runtime
    before, now = (table.manifest.versions.get(runtime, "of unknown version") for table in (old, made))
    if before != now:
        raise TableError(f"your table, {place}, was measured with {runtime} {before}, this one with {now}")
    if made.target.device.kind == "cpu" and (differences := other_machine(old.manifest.host, detect_host())):
        raise TableError(f"your table, {place}, was measured on another machine ({'; '.join(differences)})")
    # A written table has fewer digits than a measured one; both sides were read from files.
    differ = [key for key, row in made.rows.items() if key in old.rows and old.rows[key] != row]
    fits = {fit.domain.model_dump_json(): fit for fit in old.manifest.fits}
    for fit in made.manifest.fits:
        name = fit.domain.model_dump_json()
        if name in fits and fits[name].calibration_ms != fit.calibration_ms:
            differ.append(name)
        fits[name] = fit  # with this run's validation
    if differ:
        raise TableError(f"your table, {place}, has other figures for {len(differ)} of its ops, and is kept")
    newest = made if made.manifest.date >= old.manifest.date else old
    manifest = newest.manifest.model_copy(update={"fits": list(fits.values())})
    return replace(newest, rows={**old.rows, **made.rows}, manifest=manifest)
