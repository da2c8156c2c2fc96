"""Validation of a table of kernels on new networks."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from hwnas.errors import TableError, TooNoisy
from hwnas.latency.kernels import KernelTable, load_kernels, parse_kernel
from hwnas.machines import LocalMachine, Machine
from hwnas.models.prior.references import REFERENCES
from hwnas.profiling.kernels import SEED, TOGETHER, measured_batch, of_prior, speed_of
from hwnas.progress import Progress, silent
from hwnas.targets import Target
from hwnas.timing.protocol import Protocol, usual

_WHAT = "validating kernels"
LEAST = 2  # networks


def validate_kernels(
    table: KernelTable,
    target: Target,
    *,
    networks: int = 32,
    seed: int = 0,
    machine: Machine | None = None,
    protocol: Protocol | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Time new networks of the prior twice, and compare both with the predictions at the machine's speed.

    Args:
        table: the table of kernels.
        target: its target; the device must be the machine.
        networks: number of new networks; those that cannot be timed steadily are left out.
        seed: of the networks.
        machine: where they are timed; the present host if None.
        protocol: the timing protocol; the default for kernels if None.
        progress: callback, invoked after every batch.

    Returns:
        the figures of `hwnas.workflows.model_answers.KernelsValidationAnswer`.

    Raises:
        TableError: the target's device is not the machine, or the table was measured beside other reference networks.
        TooNoisy: the figures cannot be trusted.
    """
    machine, protocol = machine or LocalMachine(), protocol or usual().kernels
    machine.check(target)
    if not table.references.keys() & REFERENCES.keys():
        raise TableError(
            f"the table of kernels of {target.name} was measured beside other reference networks, by another version "
            "of hwnas, so the machine's speed cannot be compared. The table still predicts; to validate, measure it "
            f"again (hwnas profile --kernels --target {target.name})"
        )
    model = load_kernels(table)
    measured: list[list[float]] = []
    predicted, upper, speeds = [], [], []
    for start in range(0, networks, TOGETHER):
        numbers = range(start, min(start + TOGETHER, networks))
        models = {f"new {i}": of_prior(SEED + 2 + seed, i) for i in numbers}
        tick = partial(progress, _WHAT, start, networks)
        rounds = [measured_batch(models, target, machine, protocol, tick) for _ in range(2)]
        found = [speed_of(one["references"], table.references) for one in rounds]
        speeds += found
        first_round, second_round = ({one["name"]: one for one in batch["networks"]} for batch in rounds)
        for name in sorted(first_round.keys() & second_round.keys()):  # each round leaves out what was too noisy
            first, second = first_round[name], second_round[name]
            measured.append([first["ms"] * found[0], second["ms"] * found[1]])
            network = model.network([parse_kernel(key) for key, _ in first["layers"]])
            predicted.append(network.ms)
            upper.append(network.upper_ms)
        progress(_WHAT, numbers[-1] + 1, networks)
    if len(predicted) < LEAST:
        raise TooNoisy(f"only {len(predicted)} of {networks} networks were timed steadily twice: close other programs")
    both, guess = np.array(measured), np.array(predicted)
    off = np.abs(guess[:, None] / both - 1)
    bounds = [ms for ms in upper if ms is not None]
    return {
        "networks": len(guess),
        "mape": float(off.mean()),
        "within_10pct": float((off <= 0.1).mean()),
        "kendall_tau": float(np.mean([kendalltau(guess, both[:, i]).statistic for i in range(2)])),
        "noise_floor": float((np.abs(both[:, 0] - both[:, 1]) / both.mean(axis=1)).mean()),
        "speed": float(np.mean(speeds)),
        "below_upper": float((both <= np.array(bounds)[:, None]).mean()) if len(bounds) == len(guess) else None,
    }
