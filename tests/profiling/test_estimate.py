from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwnas.errors import InvalidValue, SpecError, TableError
from hwnas.latency import LatencyModel, LatencySource, plain_model
from hwnas.latency.sources import RooflineSource
from hwnas.lowering import form_of
from hwnas.lowering.work import works
from hwnas.profiling import estimated_model
from hwnas.profiling.estimate import roofline_source
from hwnas.spaces import Space
from hwnas.targets import Target, load_recipe


def target(elsewhere: Target, **hardware: float) -> Target:
    peaks = {"cores": 2, "peak_fp32_gflops": 100.0, "peak_memory_gb_per_s": 10.0, **hardware}
    facts = elsewhere.device.hardware.model_copy(update=peaks)
    device = elsewhere.device.model_copy(update={"hardware": facts})
    return replace(elsewhere, device=device, recipe=load_recipe("roofline-cpu-fp32"))


@pytest.fixture(scope="module")
def source(space: Space, elsewhere: Target) -> LatencySource:
    return roofline_source(space, target(elsewhere))


@pytest.fixture(scope="module")
def model(space: Space, source: LatencySource) -> LatencyModel:
    return plain_model(source, space)


def test_a_network_is_the_sum_of_its_ops(space: Space, model: LatencyModel, elsewhere: Target) -> None:
    on = target(elsewhere)
    codes = space.sample(4, seed=0)
    for arch, predicted in zip(space.decode(codes), model.predict(codes), strict=True):
        ops = [op for _, op in space.ops(arch)]
        form = form_of(on.recipe)
        programs = form.lower_ops(ops)
        network = form.assemble([programs[op] for op in ops])
        assert predicted == pytest.approx(RooflineSource(on, {}).estimate_ms(works(network)))


def test_it_says_that_it_is_an_estimate(model: LatencyModel) -> None:
    assert model.source == "estimated"
    assert model.fit is None
    assert model.target == "board/roofline-cpu-fp32"
    with pytest.raises(TableError):
        model.margin()


def test_it_is_always_the_same_and_follows_the_device(
    space: Space, source: LatencySource, model: LatencyModel, elsewhere: Target
) -> None:
    assert isinstance(source, RooflineSource)
    codes = space.sample(8, seed=1)
    expected = model.predict(codes)
    assert np.isfinite(expected).all()
    assert (expected > 0).all()
    assert np.array_equal(estimated_model(space, target(elsewhere)).predict(codes), expected)
    twice = RooflineSource(target(elsewhere, peak_fp32_gflops=200.0, peak_memory_gb_per_s=20.0), source.works)
    np.testing.assert_allclose(plain_model(twice, space).predict(codes), expected / 2)


def test_what_is_measured_is_not_estimated(space: Space, elsewhere: Target) -> None:
    with pytest.raises(InvalidValue, match=r"board/made-up runs on onnxruntime, which is measured; only a roofline"):
        estimated_model(space, elsewhere)


def test_a_device_without_peak_figures(space: Space, elsewhere: Target) -> None:
    on = replace(elsewhere, recipe=load_recipe("roofline-cpu-fp32"))
    with pytest.raises(SpecError, match=r"devices/board.toml has no peak_fp32_gflops and peak_memory_gb_per_s"):
        estimated_model(space, on)
