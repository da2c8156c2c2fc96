"""Supernets for other classes than those that they were trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from traceable import Basic, drawn, head, stem

from hwnas import workflows
from hwnas.errors import InvalidValue
from hwnas.spaces import make_space
from hwnas.spaces.traced import network_named, with_classes
from hwnas.supernet import Phase, Supernet, TrainConfig, for_classes, load_supernet, save_supernet
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.supernet import supernet_of
from hwnas.tracing.trace import trace

TEN = tuple("abcdefghij")


def test_a_supernet_keeps_all_but_its_last_layer() -> None:
    space = make_space("mobilenetv3-tiny", classes=10).fix(resolution=[24, 32])
    old = Supernet(space, seed=3)
    made, new = for_classes(old, 2, seed=0)
    assert new == ["slots.classifier.shared.linear.weight", "slots.classifier.shared.linear.bias"]
    assert made.space.classes == 2
    assert dict(made.space.choices) == dict(space.choices)
    before, after = old.state_dict(), made.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name not in new)
    # As many classes, but others: the layer is new all the same.
    again, replaced = for_classes(old, 10, seed=0)
    assert replaced == new
    assert not torch.equal(again.state_dict()[new[0]], before[new[0]])


@pytest.mark.parametrize("name", ["residual", "tokens", "dense"])
def test_a_traced_network_for_other_classes(name: str) -> None:
    found = trace(drawn(name), (3, 32, 32))
    spec = network_of(found, name, ElasticOptions())
    old = supernet_of(spec, {key: weight.tensor for key, weight in found.weights.items()})
    made, new = for_classes(old, 3, seed=0)
    assert made.space.classes == 3
    assert made.space.name != old.space.name
    assert network_named(made.space.name).classes == 3
    assert [v.values for v in made.space.variables] == [v.values for v in old.space.variables]
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert made(x, made.space.largest).shape == (2, 3)
        assert made(x, made.space.smallest).shape == (2, 3)
    assert len(new) == 2  # weight and bias
    # Back to ten: the network that it was, but for the new layer.
    assert with_classes(network_named(made.space.name), 10) == spec


def test_a_network_without_a_linear_layer_at_its_end() -> None:
    module = torch.nn.Sequential(stem(16), Basic(16, 16), head(16), torch.nn.Softmax(1)).eval()
    spec = network_of(trace(module, (3, 32, 32)), "soft", ElasticOptions())
    with pytest.raises(InvalidValue, match=r"soft ends with aten.softmax.*only a network that ends with a linear"):
        with_classes(spec, 3)


def pictures(folder: Path, classes: int) -> Path:
    """Gray images whose classes differ in brightness."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6), ("test", 6)):
        for label in range(classes):
            place = folder / split / f"kind{label}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 40, (32, 32)) + label * 200 // classes
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    supernet = Supernet(make_space("mobilenetv3-tiny", classes=10), seed=3)
    save_supernet(supernet, tmp_path / "old", data={"name": "cluttered-digits"}, classes=TEN, training={})
    return tmp_path / "old"


def test_a_training_goes_on_with_other_classes(old: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = pictures(tmp_path / "pictures", 2)
    config = TrainConfig(
        phases=[Phase(name="all", steps=4, learning_rate=0.05)], batch_size=8, validate_every=0,
        adapter={"method": "head"},
    )  # fmt: skip
    answer = workflows.train(
        None, "images", tmp_path / "new", init=old, data_path=root, training=config, accelerator="cpu"
    )
    assert len(answer.new_tensors) == 2
    assert "the last layer is new" in caplog.text
    made, facts = load_supernet(tmp_path / "new")
    assert facts.classes == ["kind0", "kind1"]
    assert "started_from" in facts.training
    before, after = load_supernet(old)[0].state_dict(), made.state_dict()
    trained = {name for name, _ in made.named_parameters()} - set(answer.new_tensors)
    assert all(torch.equal(after[name], before[name]) for name in trained)
    # All that takes a supernet takes it.
    [evaluated, *_] = workflows.evaluate_subnets(tmp_path / "new", [], calibration_images=16)
    assert 0 <= evaluated.validation_accuracy <= 1


def test_adapt_on_the_command_line(hwnas_cli: Callable[..., Any], old: Path, tmp_path: Path) -> None:
    root = pictures(tmp_path / "pictures", 3)
    words = ("supernet", "adapt", old, "--data", "images", "--data-path", root)
    ran = hwnas_cli(*words, "--out", tmp_path / "new", "--json")
    assert ran.code == 0, ran.err
    assert len(json.loads(ran.out)["new_tensors"]) == 2
    assert load_supernet(tmp_path / "new")[1].classes == ["kind0", "kind1", "kind2"]
    assert hwnas_cli(*words, "--out", tmp_path / "new").code == 2  # there is one
    ran = hwnas_cli(*words, "--channels", "3", "--out", tmp_path / "other")
    assert ran.code == 2
    assert "takes images of 1 channel, images has images of 3 channels" in ran.err


def test_methods_on_the_command_line(hwnas_cli: Callable[..., Any], old: Path, tmp_path: Path) -> None:
    words = ("subnet", "finetune", "--subnet", old, "--out", tmp_path / "out")
    for more, said in (
        (("--method", "lore"), "lora"),
        (("--rank", "4"), "--rank 4 needs --method"),
    ):
        ran = hwnas_cli(*words, *more)
        assert ran.code == 2
        assert said in ran.err
