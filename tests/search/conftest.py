"""Problems without a device: a latency model that is known, and whose upper bounds add nothing unless asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hwnas.latency import LatencyModel
from hwnas.latency.manifest import Fit
from hwnas.search import Problem
from hwnas.spaces import Codes, Domain, SlotSum, Space


def certain(space: Space, total: SlotSum, *, margin: float = 0.0) -> LatencyModel:
    """A model that predicts a sum; 19 networks carry bounds of 95%."""
    fit = Fit(
        domain=Domain.of(space),
        seed=0,
        calibration_ms=[1.0] * 16,
        terms={"scale": 1.0},
        held_out_mape=0.0,
        scores=[margin] * 19,
        measurement={},
    )
    return LatencyModel(space=space, target="board/made-up", total=total, plain=total, fit=fit)


def random_problem(space: Space, seed: int, *, margin: float = 0.0) -> Callable[[float], Problem]:
    """Problems of one random cost and gain, by their budget; gains need not grow with size."""
    rng = np.random.default_rng(seed)
    cost = {op: rng.uniform(0.01, 1) for op in space.distinct_ops}
    latency = space.slot_sum(cost.__getitem__)
    # One term a variable; with its requirement where it has one, as accuracy models have them.
    axes = [(i,) if v.requires is None else (space.column[v.requires[0]], i) for i, v in enumerate(space.variables)]
    arrays = []
    for variable, columns in zip(space.variables, axes, strict=True):
        effects = rng.normal(0, 1, [len(space.variables[c].values) for c in columns])
        if variable.requires:
            needed = space.variables[columns[0]].values
            effects[np.array(needed) < variable.requires[1]] = 0.0
        arrays.append(effects)
    accuracy = SlotSum(constant=float(rng.normal()), axes=tuple(axes), arrays=tuple(arrays))
    model = certain(space, latency, margin=margin)
    return lambda budget_ms: Problem(space=space, accuracy=accuracy, latency=model, budget_ms=budget_ms)


def every_network(space: Space) -> Codes:
    """All networks of a small space, by brute force."""
    grids = np.meshgrid(*(np.arange(len(v.values), dtype=np.uint8) for v in space.variables), indexing="ij")
    codes = np.stack([grid.reshape(-1) for grid in grids], axis=1)
    codes = np.unique(space.canonical(codes), axis=0)
    assert len(codes) == space.size
    return codes


@pytest.fixture(scope="session")
def make_model() -> Callable[..., LatencyModel]:
    return certain


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Callable[[float], Problem]]:
    return random_problem


@pytest.fixture(scope="session")
def brute_force() -> Callable[[Space], Codes]:
    return every_network
