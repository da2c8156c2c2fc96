"""Profile a space on a target, and validate the profile."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.errors import HwnasError, InvalidValue
from hwnas.files import only_one
from hwnas.progress import Progress, silent
from hwnas.workflows import inputs
from hwnas.workflows.answers import ProfileAnswer, ValidationAnswer, WorstNetwork
from hwnas.workflows.inputs import Fix, Place
from hwnas.workflows.older_tables import path_in, warn_of_shipped
from hwnas.workflows.side_by_side import side_by_side

if TYPE_CHECKING:
    from hwnas.latency import LatencyTable
    from hwnas.machines import Machine
    from hwnas.spaces import Space
    from hwnas.targets import Target
    from hwnas.timing.protocol import Protocols

log = logging.getLogger(__name__)

Answered = TypeVar("Answered")


def profile(
    space: str | Space,
    target: str | Target,
    *,
    fix: Fix | None = None,
    channels: int | None = None,
    classes: int | None = None,
    tables: Place | None = None,
    networks: int = 16,
    bound_networks: int = 24,
    only_missing: bool = False,
    replace: bool = False,
    machine: Machine | None = None,
    protocols: Protocols | None = None,
    progress: Progress = silent,
) -> ProfileAnswer:
    """Time every distinct op of a space, fit the latency model, and write both into the target's table.

    The same call resumes a killed one. Rows of an older table for the same target are kept unless they are measured
    again.

    Args:
        space: search space or its name.
        target: ``device/recipe``; the device ``this`` is the present host.
        fix: variable -> the value or values that remain.
        channels: of the images; the space's default if None.
        classes: likewise.
        tables: folder of latency tables; the user's data folder or ``$HWNAS_HOME`` if None.
        networks: number of calibration networks for the context terms.
        bound_networks: number of further networks for the upper bounds; n of them allow a confidence of up to
            ``n / (n + 1)``.
        only_missing: time only the ops that the table lacks.
        replace: drop an older table.
        machine: machine that times ops and networks; the target's if None, which is the present host unless the
            device has a connection.
        protocols: the timing protocols; the defaults if None.
        progress: callback, invoked after every visit.

    Raises:
        UnknownName, InvalidValue: a name or a value is unknown or invalid.
        TableError: the target's device is not the machine, or the older table cannot be added to.
        RuntimeUnavailable: the runtime cannot run on this host.
        TooNoisy: the figures cannot be trusted; nothing is written.
        OutputError: a file cannot be written, or another process measures this table.
    """
    from hwnas.latency import read_table
    from hwnas.latency.table import table_lock
    from hwnas.machines import machine_of

    if replace and only_missing:
        raise InvalidValue("use --replace or --only-missing, not both: one drops the rows that the other keeps")
    wanted = inputs.target_of(target)
    machine = machine or machine_of(wanted)
    chosen = inputs.space_of(space, fix, channels=channels, classes=classes)
    path = path_in(tables, wanted)
    journals = path.parent / f".{path.stem}.journals"
    with only_one(table_lock(path), f"the table of {wanted.name}"):
        warn_of_shipped(wanted, path, tables)
        old = read_table(wanted, path, space=chosen) if path.is_file() and not replace else None
        table = profile_into(
            path,
            chosen,
            wanted,
            journals=journals,
            old=old,
            networks=networks,
            bound_networks=bound_networks,
            only_missing=only_missing,
            machine=machine,
            protocols=protocols,
            progress=progress,
        )
        shutil.rmtree(journals, ignore_errors=True)
    fit = table.fit_for(chosen)
    assert fit is not None
    return ProfileAnswer(
        target=wanted.name,
        space=chosen.name,
        ops=len(chosen.distinct_ops),
        rows=len(table.rows),
        calibration_networks=len(fit.calibration_ms),
        bound_networks=fit.bound_networks,
        held_out_mape=fit.held_out_mape,
        terms=fit.terms,
        measurement={"ops": table.manifest.measurement, "networks": fit.measurement},
        table=str(path),
        up_to_date=table is old,
    )


def profile_all(
    space: str | Space,
    targets: Sequence[str | Target],
    *,
    machines: Mapping[str, Machine] | None = None,
    progress: Progress = silent,
    **given: Any,  # noqa: ANN401  # those of `profile`
) -> tuple[list[ProfileAnswer], dict[str, HwnasError]]:
    """`profile` for several targets: those of different machines at the same time, each with its own journal.

    Args:
        space: search space or its name.
        targets: ``device/recipe``, each once.
        machines: name of a device -> its machine; that of the target for others.
        progress: callback, invoked after every visit of each target.
        given: further arguments of `profile`.

    Returns:
        the answers of the targets that were measured, in their order; and target's name -> error of the others.

    Raises:
        UnknownName, InvalidValue: a name or a value is unknown or invalid, or a target is listed twice.
    """
    return _all(profile, space, targets, machines, progress, given)


def validate_all(
    space: str | Space,
    targets: Sequence[str | Target],
    *,
    machines: Mapping[str, Machine] | None = None,
    progress: Progress = silent,
    **given: Any,  # noqa: ANN401  # those of `validate`
) -> tuple[list[ValidationAnswer], dict[str, HwnasError]]:
    """`validate` for several targets; arguments, result and errors are as for `profile_all`."""
    return _all(validate, space, targets, machines, progress, given)


def _all(
    measure: Callable[..., Answered],
    space: str | Space,
    targets: Sequence[str | Target],
    machines: Mapping[str, Machine] | None,
    progress: Progress,
    given: Mapping[str, Any],
) -> tuple[list[Answered], dict[str, HwnasError]]:
    """A measurement of several targets: those of different machines at the same time."""
    from hwnas.machines import machine_of

    wanted = [inputs.target_of(target) for target in targets]
    if len({target.name for target in wanted}) < len(wanted):
        raise InvalidValue(f"a target is listed twice: {', '.join(target.name for target in wanted)}")
    known = {target.device.name: (machines or {}).get(target.device.name) or machine_of(target) for target in wanted}
    found, failed = side_by_side(
        {
            target.name: (
                known[target.device.name].name,
                partial(_one, measure, space, target, known[target.device.name], given),
            )
            for target in wanted
        },
        progress,
    )
    return list(found.values()), failed


def _one(
    measure: Callable[..., Answered],
    space: str | Space,
    target: Target,
    machine: Machine,
    given: Mapping[str, Any],
    progress: Progress,
) -> Answered:
    return measure(space, target, machine=machine, progress=progress, **given)


def profile_into(
    path: Path,
    space: Space,
    target: Target,
    *,
    journals: Path,
    old: LatencyTable | None = None,
    networks: int,
    bound_networks: int,
    only_missing: bool = False,
    machine: Machine | None = None,
    protocols: Protocols | None = None,
    progress: Progress = silent,
) -> LatencyTable:
    """Measure a space (`hwnas.profiling.profile`) and write its table; a complete older table is kept.

    `path` is the table's file, which the caller has locked; other arguments are as in `hwnas.profiling.profile`.

    Raises:
        InvalidValue, TableError, RuntimeUnavailable, TooNoisy, OutOfMemory, OutputError: as in
            `hwnas.profiling.profile`.
    """
    from hwnas.latency import write_table
    from hwnas.latency.table import profile_command
    from hwnas.profiling import profile as measure

    table = measure(
        space,
        target,
        journals=journals,
        old=old,
        networks=networks,
        bound_networks=bound_networks,
        only_missing=only_missing,
        machine=machine,
        protocols=protocols,
        progress=progress,
    )
    if table is old:
        return table
    for lost in old.manifest.fits if old else ():
        if not any(lost.domain == kept.domain for kept in table.manifest.fits):
            log.warning(
                "the fit of %s and its validation are dropped, because rows that it was fitted on were measured again. "
                "Profile it again, too, with: %s --only-missing",
                lost.domain.space,
                profile_command(lost.domain.make(), target, old.folder if old else None),
            )
    return write_table(table, path)


def validate(
    space: str | Space,
    target: str | Target,
    *,
    fix: Fix | None = None,
    channels: int | None = None,
    classes: int | None = None,
    tables: Place | None = None,
    networks: int = 40,
    machine: Machine | None = None,
    protocols: Protocols | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> ValidationAnswer:
    """Measure networks that the fit did not use, twice, and compare them with the predictions.

    The figures are stored in the table's manifest.

    `networks` is the number of new networks, `seed` that of their draw; other arguments are as in `profile`.

    Raises:
        UnknownName, InvalidValue: a name or a value is unknown or invalid.
        TableError: there is no table, it lacks the space, or its latencies were not measured on this machine.
        TooNoisy: the figures cannot be trusted; nothing is written.
        OutputError: a file cannot be written, or another process measures this table.
    """
    from hwnas.latency import load_model, read_table, write_table
    from hwnas.latency.table import table_lock
    from hwnas.machines import machine_of
    from hwnas.profiling import validate as measure
    from hwnas.targets import table_path

    wanted = inputs.target_of(target)
    chosen = inputs.space_of(space, fix, channels=channels, classes=classes)
    path = inputs.table_in(Path(tables), wanted) if tables else table_path(wanted)
    if path is None or not path.is_file():
        read_table(wanted, path, space=chosen)  # raises with the reason; there is no table to lock
    assert path is not None
    with only_one(table_lock(path), f"the table of {wanted.name}"):
        table = read_table(wanted, path, space=chosen)
        model = load_model(table, chosen)
        report = measure(
            model,
            wanted,
            networks=networks,
            seed=seed,
            programs=path.parent / f".{path.stem}.programs",
            machine=machine or machine_of(wanted),
            protocol=protocols.networks if protocols else None,
            progress=progress,
        )
        write_table(table.with_validation(chosen, report.summary), path)
    worst = [
        WorstNetwork(arch=dict(arch), relative_error=error, slots_ms=slots)
        for arch, error, slots in report.worst(model)
    ]
    figures = {name: getattr(report.summary, name) for name in type(report.summary).model_fields}
    return ValidationAnswer(target=wanted.name, space=chosen.name, worst=worst, **figures)
