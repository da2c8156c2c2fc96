"""Reference programs: calibration networks of a table, whose times in the profile are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hwnas.latency.model import LatencyModel
from hwnas.lowering import Form
from hwnas.lowering.networks import assembled, lower_ops
from hwnas.progress import Progress, silent
from hwnas.timing.among import Reference

COUNT = 3  # in a bundle, whose references must stay small


def references_for(
    model: LatencyModel, predicted_ms: float, form: Form, folder: Path, progress: Progress = silent
) -> Mapping[str, Reference]:
    """Calibration networks of a model, lowered into a folder, for timing beside a network.

    They come from the profile's seed. Among the smaller half of the networks by their weights, those with the most
    similar latency are taken, because other load slows large networks more than small ones.

    Args:
        model: the latency model.
        predicted_ms: latency of the network that they are timed beside.
        form: of the programs.
        folder: for their files.
        progress: callback, invoked during lowering.

    Returns:
        name -> reference; empty for a model that was never calibrated on whole networks.

    Raises:
        OutputError: a file cannot be written.
    """
    if model.fit is None:
        return {}
    fit = model.fit
    space, then_ms = fit.domain.make(), np.array(fit.calibration_ms)
    codes = fit.networks()[: len(then_ms)]
    small = np.argsort(space.params(codes), kind="stable")[: max(COUNT, len(codes) // 2)]
    rows = sorted(small[np.argsort(np.abs(np.log(then_ms[small] / predicted_ms)), kind="stable")][:COUNT].tolist())
    ops = {op: None for arch in space.decode(codes[rows]) for _, op in space.ops(arch)}
    programs = assembled(space, form, codes[rows], lower_ops(space, list(ops), form, progress), folder)
    return {
        str(row): Reference(program=program, profiled_ms=float(then_ms[row]))
        for row, program in zip(rows, programs.values(), strict=True)
    }
