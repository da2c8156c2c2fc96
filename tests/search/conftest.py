"""Problems without a device: a latency model that is known, and whose upper bounds add nothing unless asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hwnas.latency import LatencyModel
from hwnas.latency.manifest import Fit
from hwnas.search import Problem, latency_objective
from hwnas.spaces import Codes, Domain, SlotSum, Space, make_space


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


def random_gain(space: Space, rng: np.random.Generator) -> SlotSum:
    """One term a variable, with its requirement where it has one, as accuracy models have them."""
    axes = [(*(one.column for one in conditions), i) for i, conditions in enumerate(space.conditions)]
    arrays = []
    for conditions, columns in zip(space.conditions, axes, strict=True):
        effects = rng.normal(0, 1, [len(space.variables[c].values) for c in columns])
        for axis, one in enumerate(conditions):
            np.moveaxis(effects, axis, 0)[~one.matters] = 0.0
        arrays.append(effects)
    return SlotSum(constant=float(rng.normal()), axes=tuple(axes), arrays=tuple(arrays))


def random_cost(space: Space, rng: np.random.Generator) -> SlotSum:
    """Every op costs something of its own; no larger op costs more for that."""
    cost = {op: rng.uniform(0.01, 1) for op in space.distinct_ops}
    return space.slot_sum(cost.__getitem__)


def random_problem(space: Space, seed: int, *, margin: float = 0.0) -> Callable[[float | None], Problem]:
    """Problems of one random cost and gain, by their budget; gains need not grow with size."""
    rng = np.random.default_rng(seed)
    latency = random_cost(space, rng)
    accuracy = random_gain(space, rng)
    objective = latency_objective(certain(space, latency, margin=margin))
    return lambda budget: Problem(
        space=space,
        accuracy=accuracy,
        objectives=(objective,),
        budgets={} if budget is None else {objective.name: budget},
        seed=seed,
    )


def every_network(space: Space) -> Codes:
    """All networks of a small space, by brute force."""
    free = [i for i, v in enumerate(space.variables) if len(v.values) > 1]
    grids = np.meshgrid(*(np.arange(len(space.variables[i].values), dtype=np.uint8) for i in free), indexing="ij")
    codes = np.zeros((grids[0].size if free else 1, len(space.variables)), np.uint8)
    for column, grid in zip(free, grids, strict=True):
        codes[:, column] = grid.reshape(-1)
    codes = np.unique(space.canonical(codes), axis=0)
    assert len(codes) == space.size
    return codes


@pytest.fixture(scope="session")
def make_model() -> Callable[..., LatencyModel]:
    return certain


@pytest.fixture(scope="session")
def make_problem() -> Callable[..., Callable[[float | None], Problem]]:
    return random_problem


@pytest.fixture(scope="session")
def make_gain() -> Callable[[Space, np.random.Generator], SlotSum]:
    return random_gain


@pytest.fixture(scope="session")
def make_cost() -> Callable[[Space, np.random.Generator], SlotSum]:
    return random_cost


@pytest.fixture(scope="session")
def brute_force() -> Callable[[Space], Codes]:
    return every_network


def _small_spaces() -> dict[str, Space]:
    tiny = make_space("mobilenetv3-tiny")
    one = {f"{what}_{s}_{b}": 3 for what in ("kernel", "expansion") for s in (1, 2, 3) for b in (1, 2, 3)}
    resnet = make_space("resnet50")
    narrow = {v.name: v.values[0] for v in resnet.variables if not v.name.startswith("width")}
    return {
        "one network": tiny.fix(**one, resolution=24, depth_1=1, depth_2=1, depth_3=1),
        "one stage": tiny.fix(
            **{**one, "kernel_1_1": (3, 5), "kernel_1_3": (5, 7)}, resolution=28, depth_2=1, depth_3=1
        ),
        "three stages": tiny.fix(
            **{**one, "kernel_1_2": (3, 5, 7), "expansion_2_2": (2, 4), "kernel_3_3": (3, 7), "expansion_3_1": (2, 3)},
            resolution=(24, 32),
        ),
        "no shallow depth": tiny.fix(
            **{**one, "kernel_1_3": (3, 5, 7), "expansion_2_2": (2, 4)}, depth_1=(2, 3), depth_2=(2,), depth_3=(1, 3)
        ),
        "resolutions": tiny.fix(**one),
        # Widths are read by the stages on both sides: a chain.
        "a chain": resnet.fix(**{**narrow, "resolution": (128, 160), "depth_2": (2, 3), "expansion_2_3": (20, 35)}),
    }


@pytest.fixture(scope="session")
def small_spaces() -> dict[str, Space]:
    return _small_spaces()


@pytest.fixture(params=_small_spaces(), ids=str)
def small(request: pytest.FixtureRequest, small_spaces: dict[str, Space]) -> Space:
    return small_spaces[request.param]


@pytest.fixture(params=[None, 12, 2], ids=["whole", "some held", "most held"])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search with variables held, as a space needs it whose parts are too large to enumerate."""
    if request.param:
        monkeypatch.setattr("hwnas.search.exact.decompose.MAX_PART", request.param)
