"""Refit of a latency model with networks that were timed after the profile, such as a deployed one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwnas.errors import TableError
from hwnas.latency import LatencyModel, LatencyTable, load_model
from hwnas.latency.context import fit_context
from hwnas.latency.table import profile_command
from hwnas.spaces import Arch, Space


def refitted(table: LatencyTable, space: Space, timed: Mapping[Arch, float]) -> LatencyModel:
    """The latency model of a space with further measurements, which also widen its upper bound.

    Each network counts as a calibration network. Its score for the bound is its error under a fit without it, so with n
    bound networks the model of a confidence up to ``n / (n + 1)`` bounds every network that is given here. The choice
    of the networks is not random: a search finds those that the model underestimates, so a bound of random networks
    holds less often for them.

    Args:
        table: the table with its fit.
        space: of the predictions.
        timed: network -> its latency at the machine's speed in the profile, in milliseconds; none for the model as it
            is.

    Raises:
        MissingOp: the table lacks an op of the space.
        TableError: the table has no fit for the space, or the fit was made by a version that did not store what a
            refit needs.
    """
    if not timed:
        return load_model(table, space)
    fit = table.fit_for(space)
    if table.origin == "transferred":
        raise TableError(
            f"the table of {table.target.name} was transferred from other targets, and a refit needs ops that were "
            f"measured on it. Profile it: {profile_command(space, table.target)} --replace"
        )
    if fit is None or not fit.bound_ms:
        raise TableError(
            f"the table of {table.target.name} was fitted by a version of hwnas that did not store the times of its "
            f"bound networks, so it cannot be refitted. Profile again: {profile_command(space, table.target)} --replace"
        )
    whole, count = fit.domain.make(), len(fit.calibration_ms)
    codes = fit.networks()
    added, added_ms = whole.encode(list(timed)), np.array(list(timed.values()))
    table_ms = {op: table.latency_ms(op) for op in whole.distinct_ops}
    measured_ms = np.concatenate([fit.calibration_ms, added_ms])
    fitted = fit_context(whole, table_ms, np.concatenate([codes[:count], added]), measured_ms)
    refit = fit.model_copy(
        update={"terms": fitted.terms, "held_out_mape": float(np.abs(fitted.held_out).mean()), "scores": []}
    )
    bound_ms = load_model(table.with_fit(refit), whole).predict(codes[count:])
    scores = np.concatenate([np.array(fit.bound_ms) / bound_ms - 1, 1 / (1 + fitted.held_out[count:]) - 1])
    return load_model(table.with_fit(refit.model_copy(update={"scores": np.sort(scores).tolist()})), space)
