"""Whole-network latencies of the user: as a table, and beside the predictions of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import InvalidValue
from hwnas.files import only_one
from hwnas.workflows import inputs
from hwnas.workflows.inputs import Place
from hwnas.workflows.older_tables import path_in, table_to_extend
from hwnas.workflows.transfer_answers import CONFIDENCE, AgainstAnswer, NetworksAnswer

if TYPE_CHECKING:
    from hwnas.spaces import Space
    from hwnas.targets import Target


def import_networks(
    space: str | Space,
    target: str | Target,
    measurements: Place,
    *,
    column: str | None = None,
    tables: Place | None = None,
    replace: bool = False,
) -> NetworksAnswer:
    """Write the table of a target from latencies of whole networks that were measured elsewhere.

    Args:
        space: of the networks, or its name.
        target: ``device/recipe``.
        measurements: CSV file of networks and latencies (`hwnas.latency.whole`).
        column: of the latencies in that file.
        tables: folder of latency tables, as for `transfer`.
        replace: drop an older table instead of adding to it.

    Raises:
        UnknownName, InvalidValue: a name or a measurement is invalid.
        TableError: the file cannot be read, or an older table was not imported.
        OutputError: the table cannot be written.
    """
    from hwnas.latency import write_table
    from hwnas.latency.import_networks import networks_table
    from hwnas.latency.table import table_lock
    from hwnas.latency.whole import failed_rows, read_networks

    wanted, chosen = inputs.target_of(target), inputs.space_of(space)
    measured = read_networks(Path(measurements), chosen, column)
    failed = failed_rows(measured.latency_ms, chosen.macs(measured.codes) + chosen.macs(measured.codes).mean())
    path = path_in(tables, wanted)
    with only_one(table_lock(path), f"the table of {wanted.name}"):
        old = table_to_extend(wanted, path, "imported", tables, replace=replace)
        table = write_table(networks_table(measured.without(failed), wanted, old), path)
    fit = table.fit_for(chosen)
    assert fit is not None
    return NetworksAnswer(
        target=wanted.name,
        space=chosen.name,
        networks=len(measured) - int(failed.sum()),
        failed=int(failed.sum()),
        held_out_mape=fit.held_out_mape,
        rows=len(table.rows),
        table=str(path),
    )


def validate_against(
    space: str | Space,
    target: str | Target,
    measurements: Place,
    *,
    column: str | None = None,
    tables: Place | None = None,
) -> AgainstAnswer:
    """Compare the predictions of a target's table with measurements in a file; nothing is stored.

    Args:
        space: of the networks, or its name.
        target: ``device/recipe``.
        measurements: CSV file of networks and latencies (`hwnas.latency.whole`).
        column: of the latencies in that file.
        tables: folder of latency tables; all known ones if None.

    Raises:
        UnknownName, InvalidValue: a name or a measurement is invalid.
        TableError: a file cannot be read, or there is no table.
    """
    import numpy as np

    from hwnas.latency.transfer import spearman
    from hwnas.latency.whole import plausible, read_networks
    from hwnas.profiling.baselines import tau

    wanted, chosen = inputs.target_of(target), inputs.space_of(space)
    model = inputs.latency_model(wanted, Path(tables) if tables else None, chosen)
    given = read_networks(Path(measurements), chosen, column)
    measured = plausible(given, model.predict(given.codes)[None], "the table predicts")
    if len(measured) < 2:
        raise InvalidValue(
            f"{measured.name} has {len(measured)} usable measurements; a comparison of ranks needs at least 2 networks"
        )
    predicted = model.predict(measured.codes)
    ratio = predicted / measured.latency_ms
    below = None
    if model.fit is not None and model.fit.scores:
        below = float((measured.latency_ms <= model.predict_upper(measured.codes, CONFIDENCE)).mean())
    return AgainstAnswer(
        target=wanted.name,
        space=chosen.name,
        networks=len(measured),
        failed=len(given) - len(measured),
        mape=float(np.abs(ratio - 1).mean()),
        bias=float(np.median(ratio) - 1),
        within_10pct=float((np.abs(ratio - 1) <= 0.1).mean()),
        spearman=spearman(predicted, measured.latency_ms),
        kendall_tau=tau(predicted, measured.latency_ms[None]),
        confidence=CONFIDENCE,
        below_upper=below,
        repeated=measured.repeated,
        disagreement=measured.disagreement,
    )
