"""Two unbalanced classes: int8 is judged by agreement and the metric, not by the cosine of two logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwnas.accuracy import Evaluator, parse_metric
from hwnas.data.images import Images
from hwnas.data.options import DataOptions
from hwnas.deploy.sweep import sweep
from hwnas.machines import LocalMachine
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train
from hwnas.targets import Recipe, resolve_target
from hwnas.timing import Measurement, Protocol

FP32, INT8 = "onnxruntime-cpu-fp32", "onnxruntime-cpu-int8"
CLASSES = ("crack", "intact")


def taking(ms: dict[str, float]) -> Callable[..., Measurement]:
    """`LocalMachine.time` of a machine on which a recipe's programs take these milliseconds."""

    def time(machine: object, programs: dict[str, Path], recipe: Recipe, *_: object, **__: object) -> Measurement:
        samples = {name: [[ms[recipe.name]] * 4] * 4 for name in programs}
        return Measurement(samples_ms=samples, reference=next(iter(programs)), protocol=Protocol(session_passes=1))

    return time


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """300 gray images of noise, a third with a dark line; in some of both classes the line is faint."""
    root, rng = tmp_path_factory.mktemp("cells"), np.random.default_rng(0)
    lines = ["file,label,split"]
    for i in range(300):
        pixels = rng.normal(150, 25, (24, 24))
        crack = i % 3 == 0
        if crack or i % 10 == 1:
            pixels[:, rng.integers(4, 20)] -= rng.uniform(20, 110) if crack else rng.uniform(0, 40)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
        split = "train" if i < 180 else "val" if i < 240 else "test"
        lines.append(f"{i}.png,{CLASSES[0] if crack else CLASSES[1]},{split}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return Images(root, options=DataOptions(labels="labels.csv"))


@pytest.fixture(scope="module")
def judge(cells: Images, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """A trained network of one arch, evaluated by the F1 of the rare class."""
    space = make_space("mobilenetv3-tiny", classes=2, in_channels=1)
    network = Supernet(space.fix(**{**space.smallest, "resolution": 24}), seed=0)
    config = TrainConfig(
        phases=[Phase(name="all", steps=60, learning_rate=0.1)], batch_size=32, class_weights="balanced"
    )
    train(network, cells, config, seed=0, folder=tmp_path_factory.mktemp("training"))
    return Evaluator(
        network, cells, images=None, calibration_images=100, seed=1, metric=parse_metric("f1", CLASSES, "crack")
    )


def test_a_sweep_ends_in_a_pick_where_int8_keeps_the_metric(judge, tmp_path, monkeypatch):
    ms = {FP32: 2.0, INT8: 1.0}  # as where int8 has the kernels; the machine's own times are not the subject
    monkeypatch.setattr(LocalMachine, "time", taking(ms))
    targets = [resolve_target(f"this/{name}") for name in (FP32, INT8)]
    arch = judge.supernet.space.largest
    with judge.journal(tmp_path, "weights") as journal:
        found = sweep(arch, judge, targets, journal, max_drop=0.02)
    of = {one.target.recipe.name: one for one in found.recipes}
    assert judge.accuracy(arch) == of[FP32].parity.torch_accuracy > 0.6
    assert not found.left_out
    assert of[INT8].refused is None
    assert found.picked is of[INT8]
    assert of[INT8].parity.metric == "f1 of crack"
    assert of[INT8].lost <= 0.02
    assert of[INT8].parity.figures.positive == "crack"


def test_a_refused_recipe_keeps_its_figures_and_is_not_picked(judge, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalMachine, "time", taking({FP32: 1.0, INT8: 1.0, "strict": 1.0}))
    int8 = resolve_target(f"this/{INT8}")
    strict = int8.recipe.parity.model_copy(update={"max_abs_error": 1e-9})
    refused = int8.__class__(int8.device, int8.recipe.model_copy(update={"name": "strict", "parity": strict}))
    arch = judge.supernet.space.largest
    with judge.journal(tmp_path, "weights") as journal:
        found = sweep(arch, judge, [refused], journal, max_drop=1.0)
        [again] = sweep(arch, judge, [refused], journal, max_drop=1.0).recipes
    [one] = found.recipes
    assert found.picked is None
    assert "max_abs_error" in one.refused
    assert again == one
    assert one.latency_ms == 1.0
    assert 0 < one.parity.deployed_accuracy <= 1
