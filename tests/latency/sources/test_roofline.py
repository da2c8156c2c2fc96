from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import nn

from hwnas.errors import MissingOp, RuntimeUnavailable, SpecError
from hwnas.latency.sources import LatencySource, RooflineSource, Work
from hwnas.lowering import Program, form_of
from hwnas.lowering.torch_archive import load_archive
from hwnas.lowering.work import works
from hwnas.spaces import make_space, parse_op
from hwnas.targets import Device, Recipe, Target, load_recipe
from hwnas.testing.networks import CLASSES, SHAPE, trained_network
from hwnas.timing import time_programs
from hwnas.timing.protocol import OPS

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


def source(on: Device, recipe: Recipe = RECIPE) -> RooflineSource:
    return RooflineSource(Target(on, recipe), {})


def estimate_ms(program: Program, on: Device, recipe: Recipe = RECIPE) -> float:
    return source(on, recipe).estimate_ms(works(program))


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    """The ops of a network, in order."""
    space = make_space("mobilenetv3-tiny", in_channels=SHAPE[0], classes=CLASSES)
    ops = [op for _, op in space.ops(space.smallest)]
    lowered = form_of(RECIPE).lower_ops(ops)
    return [lowered[op] for op in ops]


def test_it_cannot_be_timed(programs: list[Program]) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"nothing can be timed with roofline-cpu-fp32"):
        time_programs({"op": programs[0]}, RECIPE, OPS)


def test_it_has_no_options() -> None:
    with pytest.raises(SpecError, match=r"\[options\] of roofline: compile\. Estimates have no options"):
        source(device(), RECIPE.model_copy(update={"options": {"compile": True}}))


def test_an_op_that_was_not_counted() -> None:
    op = parse_op("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2")
    with pytest.raises(MissingOp, match="no work was counted for"):
        source(device()).latency_ms(op)


def test_it_is_a_latency_source() -> None:
    op = parse_op("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2")
    made: LatencySource = RooflineSource(Target(device(), RECIPE), {op: [Work(100_000_000, 8), Work(2, 5_000_000)]})
    assert made.origin == "estimated"
    assert made.target.name == "board/roofline-cpu-fp32"
    assert made.latency_ms(op) == pytest.approx(2.0 + 0.5)  # 50 Gflop/s, 10 GB/s


def test_a_linear_layer_by_hand() -> None:
    # One core of two, so 50 Gflop/s.
    program = form_of(RECIPE).lower(nn.Linear(64, 32), (64,))
    flops, moved = 2 * 64 * 32, 4 * (64 + 64 * 32 + 32 + 32)
    assert works(program) == (Work(flops, moved),)
    assert estimate_ms(program, device()) == pytest.approx(1e3 * max(flops / 50e9, moved / 10e9))


def test_a_convolution_by_hand() -> None:
    program = form_of(RECIPE).lower(nn.Conv2d(8, 16, 3, padding=1, groups=4), (8, 6, 6))
    [found] = works(program)
    assert found.flops == 2 * 16 * 6 * 6 * 2 * 9
    assert found.traffic_bytes == 4 * (8 * 36 + 16 * 2 * 9 + 16 + 16 * 36)


def test_estimates_are_positive_finite_and_always_the_same(programs: list[Program]) -> None:
    for program in programs:
        found = estimate_ms(program, device())
        assert math.isfinite(found)
        assert min(found, *(number for work in works(program) for number in (work.flops, work.traffic_bytes))) > 0
        assert estimate_ms(program, device()) == found


def test_a_sequence_has_the_work_of_its_parts(programs: list[Program]) -> None:
    whole = works(form_of(RECIPE).assemble(programs))
    assert whole == tuple(work for program in programs for work in works(program))
    total = sum(estimate_ms(program, device()) for program in programs)
    assert source(device()).estimate_ms(whole) == pytest.approx(total)


def test_a_network_is_estimated_as_its_ops_are(programs: list[Program], tmp_path: Path) -> None:
    form = form_of(RECIPE)
    program = form.lower(trained_network(tiny=False), (3, 24, 24))
    assert estimate_ms(program, device()) == estimate_ms(form.assemble(programs), device())
    assert works(load_archive(form.write(program, tmp_path))) == works(program)


def test_peaks_twice_as_high_halve_the_time(programs: list[Program]) -> None:
    base = estimate_ms(programs[1], device())
    twice = estimate_ms(programs[1], device(peak_fp32_gflops=200.0, peak_memory_gb_per_s=20.0))
    assert twice == pytest.approx(base / 2)
    for faster in ({"peak_fp32_gflops": 1e9}, {"peak_memory_gb_per_s": 1e9}):
        assert twice / 100 < estimate_ms(programs[1], device(**faster)) <= base


@pytest.mark.parametrize(("cores", "threads", "share"), [(2, 1, 0.5), (2, 2, 1), (2, 4, 1), (8, 2, 0.25), (None, 3, 1)])
def test_a_thread_has_its_cores_share_of_the_arithmetic(cores: int | None, threads: int, share: float) -> None:
    program = form_of(RECIPE).lower(nn.Linear(64, 32), (64,))
    on = device(cores=cores, peak_memory_gb_per_s=1e9)
    found = estimate_ms(program, on, RECIPE.model_copy(update={"threads": threads}))
    assert found == pytest.approx(1e3 * works(program)[0].flops / (100e9 * share))


@pytest.mark.parametrize("missing", ["peak_fp32_gflops", "peak_memory_gb_per_s"])
def test_a_device_without_peak_figures_is_refused(missing: str) -> None:
    with pytest.raises(SpecError, match=r"devices/board.toml has no peak_fp32_gflops and peak_memory_gb_per_s"):
        source(device(**{missing: None}))


def test_a_larger_batch_takes_longer() -> None:
    op = parse_op("conv 3x24x24>16x12x12 act=hswish kernel=3 stride=2")
    times = []
    for batch in (1, 4):
        recipe = RECIPE.model_copy(update={"batch": batch})
        [program] = form_of(recipe).lower_ops([op]).values()
        times.append(estimate_ms(program, device(), recipe))
    assert times[0] < times[1] <= 4 * times[0]
