"""A search problem with a known answer, on once-for-all's own latency tables of a phone (Samsung Note10).

The tables, the formula and the optima are those of ``shared/data/ofa-note10/README.md``, beside the checkout.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwnas.latency.ofa_yaml import parse_ofa_yaml
from hwnas.search import Objective, Problem
from hwnas.spaces import SlotSum, Space, make_space

TABLES = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "ofa-note10"
RESOLUTIONS = (160, 176, 192, 208, 224)
OPTIMA = {20.0: 71.52598, 25.0: 73.76742, 40.0: 77.82220}  # budget in ms -> accuracy
MS = {20.0: 19.997, 25.0: 24.928, 40.0: 39.887}  # budget -> latency of the optimum


def note10_space() -> Space:
    """The space of the problem."""
    return make_space("mobilenetv3-w1.2").fix(resolution=RESOLUTIONS)


def note10_latency(space: Space) -> SlotSum:
    """The tables as one sum: a row's time differs a little from file to file, so each resolution has its own."""
    sums = []
    for resolution in RESOLUTIONS:
        path = TABLES / f"{resolution}_lookup_table.yaml"
        means = parse_ofa_yaml(path.read_bytes(), path.name)
        sums.append(space.fix(resolution=resolution).slot_sum(lambda op, means=means: means[op].latency_ms))
    assert all(slot.variables[0] == "resolution" for slot in space.slots)
    arrays = tuple(np.concatenate(parts) for parts in zip(*(s.arrays for s in sums), strict=True))
    return replace(sums[0], arrays=arrays)


def note10_accuracy(space: Space) -> SlotSum:
    """The made-up accuracy, with a small quirk of every choice."""
    weights, by_expansion, by_kernel = (1, 1.1, 1.2, 1.3, 1.6), {3: 0, 4: 0.4, 6: 1}, {3: 0, 5: 0.6, 7: 1}
    axes: list[tuple[int, ...]] = [(space.column["resolution"],)]
    arrays = [np.array([0, 0.8, 1.5, 2.1, 2.6])]
    for s in range(5):
        for j in range(4):
            names = (f"depth_{s + 1}", f"kernel_{s + 1}_{j + 1}", f"expansion_{s + 1}_{j + 1}")
            array = np.zeros((3, 3, 3))
            for d, depth in enumerate((2, 3, 4)):
                for k, kernel in enumerate((3, 5, 7)):
                    for e, expansion in enumerate((3, 4, 6)):
                        if j < depth:
                            quirk = zlib.crc32(f"{s}.{j}.{kernel}.{expansion}".encode("ascii")) % 1000 / 1000 - 0.5
                            size = 0.2 + 0.5 * by_expansion[expansion] + 0.3 * by_kernel[kernel]
                            array[d, k, e] = weights[s] * 0.8**j * size + 0.05 * quirk
            axes.append(tuple(space.column[name] for name in names))
            arrays.append(array)
    return SlotSum(constant=60.0, axes=tuple(axes), arrays=tuple(arrays))


def note10_problem(budget: float | None, *, seed: int = 0, loaded: Problem | None = None) -> Problem:
    """The problem at a budget in milliseconds, or without one; `loaded` saves reading the tables again."""
    budgets = {} if budget is None else {"note10": budget}
    if loaded is not None:
        return replace(loaded, budgets=budgets, seed=seed)
    space = note10_space()
    objective = Objective(name="note10", unit="ms", total=note10_latency(space))
    return Problem(space=space, accuracy=note10_accuracy(space), objectives=(objective,), budgets=budgets, seed=seed)
