from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from hwnas.errors import RuntimeInputError, RuntimeUnavailable, SpecError
from hwnas.lowering import Program, form_of
from hwnas.runtimes import open_session
from hwnas.runtimes.roofline import Estimate, RooflineSession
from hwnas.spaces import Space, parse_op
from hwnas.targets import Device, Recipe, load_recipe

RECIPE = load_recipe("roofline-cpu-fp32")


def device(**hardware: object) -> Device:
    return Device.model_validate(
        {
            "schema": 1,
            "name": "board",
            "kind": "cpu",
            "description": "d",
            "match": {"cpu": "None"},
            "hardware": {
                "cores": 2,
                "peak_fp32_gflops": 100.0,
                "peak_memory_gb_per_s": 10.0,
                "source": "made up",
                **hardware,
            },
        }
    )


def estimate(program: Program | Path, on: Device, recipe: Recipe = RECIPE) -> Estimate:
    with open_session(program, recipe) as session:
        assert isinstance(session, RooflineSession)
        return session.estimate(on)


@pytest.fixture(scope="module")
def programs(colour_space: Space) -> list[Program]:
    """The ops of a network, in order."""
    ops = [op for _, op in colour_space.ops(colour_space.smallest)]
    lowered = form_of(RECIPE).lower_ops(ops)
    return [lowered[op] for op in ops]


def test_it_cannot_be_timed(programs: list[Program]) -> None:
    with open_session(programs[0], RECIPE) as session:
        x = np.zeros(session.shape, np.float32)
        session.run(x)
        with pytest.raises(RuntimeUnavailable, match=r"roofline-cpu-fp32 computes estimates and cannot be timed"):
            session.bind(x)


def test_a_closed_session_estimates_nothing(programs: list[Program]) -> None:
    session = open_session(programs[0], RECIPE)
    assert isinstance(session, RooflineSession)
    session.close()
    with pytest.raises(RuntimeInputError, match="session is closed"):
        session.estimate(device())


def test_it_has_no_options_of_torch(programs: list[Program]) -> None:
    with pytest.raises(SpecError, match=r"\[options\] of roofline: compile: .* Known options: none\."):
        open_session(programs[0], RECIPE.model_copy(update={"options": {"compile": True}}))


def test_a_linear_layer_by_hand() -> None:
    # One core of two, so 50 Gflop/s.
    program = form_of(RECIPE).lower(nn.Linear(64, 32), (64,))
    found = estimate(program, device())
    flops, moved = 2 * 64 * 32, 4 * (64 + 64 * 32 + 32 + 32)
    assert (found.flops, found.traffic_bytes) == (flops, moved)
    assert found.latency_ms == pytest.approx(1e3 * max(flops / 50e9, moved / 10e9))


def test_a_convolution_by_hand() -> None:
    program = form_of(RECIPE).lower(nn.Conv2d(8, 16, 3, padding=1, groups=4), (8, 6, 6))
    found = estimate(program, device())
    assert found.flops == 2 * 16 * 6 * 6 * 2 * 9
    assert found.traffic_bytes == 4 * (8 * 36 + 16 * 2 * 9 + 16 + 16 * 36)


def test_estimates_are_positive_finite_and_always_the_same(programs: list[Program]) -> None:
    for program in programs:
        found = estimate(program, device())
        assert math.isfinite(found.latency_ms)
        assert min(found.latency_ms, found.flops, found.traffic_bytes) > 0
        assert estimate(program, device()) == found


def test_a_sequence_takes_the_sum_of_its_parts(programs: list[Program]) -> None:
    whole = estimate(form_of(RECIPE).assemble(programs), device())
    parts = [estimate(program, device()) for program in programs]
    assert whole.latency_ms == pytest.approx(sum(part.latency_ms for part in parts))
    assert whole.flops == sum(part.flops for part in parts)
    assert whole.traffic_bytes == sum(part.traffic_bytes for part in parts)


def test_a_network_is_estimated_as_its_ops_are(
    programs: list[Program], colour_space: Space, network_of: Callable[[bool], nn.Module], tmp_path: Path
) -> None:
    form = form_of(RECIPE)
    program = form.lower(network_of(False), (3, 24, 24))
    assert estimate(program, device()) == estimate(form.assemble(programs), device())
    assert estimate(form.write(program, tmp_path), device()) == estimate(program, device())


def test_peaks_twice_as_high_halve_the_time(programs: list[Program]) -> None:
    base = estimate(programs[1], device()).latency_ms
    twice = estimate(programs[1], device(peak_fp32_gflops=200.0, peak_memory_gb_per_s=20.0)).latency_ms
    assert twice == pytest.approx(base / 2)
    for faster in ({"peak_fp32_gflops": 1e9}, {"peak_memory_gb_per_s": 1e9}):
        assert twice / 100 < estimate(programs[1], device(**faster)).latency_ms <= base


@pytest.mark.parametrize(("cores", "threads", "share"), [(2, 1, 0.5), (2, 2, 1), (2, 4, 1), (8, 2, 0.25), (None, 3, 1)])
def test_a_thread_has_its_cores_share_of_the_arithmetic(cores: int | None, threads: int, share: float) -> None:
    program = form_of(RECIPE).lower(nn.Linear(64, 32), (64,))
    on = device(cores=cores, peak_memory_gb_per_s=1e9)
    found = estimate(program, on, RECIPE.model_copy(update={"threads": threads}))
    assert found.latency_ms == pytest.approx(1e3 * found.flops / (100e9 * share))


@pytest.mark.parametrize("missing", ["peak_fp32_gflops", "peak_memory_gb_per_s"])
def test_a_device_without_peak_figures_is_refused(programs: list[Program], missing: str) -> None:
    with pytest.raises(SpecError, match=r"devices/board.toml has no peak_fp32_gflops and peak_memory_gb_per_s"):
        estimate(programs[0], device(**{missing: None}))


def test_a_larger_batch_takes_longer() -> None:
    op = parse_op("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2")
    times = []
    for batch in (1, 4):
        recipe = RECIPE.model_copy(update={"batch": batch})
        [program] = form_of(recipe).lower_ops([op]).values()
        times.append(estimate(program, device(), recipe).latency_ms)
    assert times[0] < times[1] <= 4 * times[0]
