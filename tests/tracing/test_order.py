"""The order of channels, and the supernet of a network with its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from traceable import NETWORKS, drawn

from hwnas import workflows
from hwnas.errors import InvalidValue, ModelError, OutputError, UnknownName
from hwnas.spaces.traced import NetworkSpec
from hwnas.supernet import Phase, TrainConfig, load_supernet
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.order import importance_of, ordered, orders_of, uses_of
from hwnas.tracing.supernet import supernet_of
from hwnas.tracing.trace import trace

SHAPE = (3, 32, 32)
FILE = """
import torch
from torch import nn


def make(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )


def with_example():
    return make(), torch.zeros(1, 1, 32, 32)


def broken():
    raise RuntimeError("no weights here")


def text():
    return "a network"


def for_two():
    layers = nn.Conv2d(1, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(*layers), torch.zeros(1, 1, 32, 32)
"""


def spec_of(module: nn.Module) -> tuple[NetworkSpec, dict[str, Tensor]]:
    found = trace(module, SHAPE)
    tensors = {name: weight.tensor for name, weight in found.weights.items()}
    return network_of(found, "n", ElasticOptions()), tensors


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, *SHAPE, generator=generator), torch.arange(4) % 10) for _ in range(2)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("measure", ["l1", "bn", "taylor"])
def test_another_order_computes_the_same(name: str, measure: Any) -> None:
    module = drawn(name)
    spec, tensors = spec_of(module)
    found = importance_of(measure, module, tensors, batches)
    orders = orders_of(spec, found, scales=measure == "bn")
    assert any(not torch.equal(order, torch.arange(len(order))) for order in orders.values())
    supernet = supernet_of(spec, ordered(spec, tensors, orders))
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        expected = module(x)
        torch.testing.assert_close(supernet(x, supernet.space.largest), expected, rtol=1e-5, atol=1e-5)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_important_channels_come_first() -> None:
    module = drawn("residual")
    inner = module[1].one  # type: ignore[index]
    with torch.no_grad():
        inner.weight[5] *= 100
        inner.weight[[0, 2]] = 0
    spec, tensors = spec_of(module)
    [number] = [i for i, group in enumerate(spec.groups) if group.name == "1.one"]
    order = orders_of(spec, importance_of("l1", module, tensors, list))[number]
    assert order[0] == 5
    assert set(order[-2:].tolist()) == {0, 2}


def test_taylor_sees_what_the_loss_does_not_need() -> None:
    """Large weights whose outputs nothing reads."""
    module = drawn("residual")
    with torch.no_grad():
        module[1].one.weight[3] *= 50  # type: ignore[index]
        module[1].two.weight[:, 3] = 0  # type: ignore[index]
    spec, tensors = spec_of(module)
    [number] = [i for i, group in enumerate(spec.groups) if group.name == "1.one"]
    by_size = orders_of(spec, importance_of("l1", module, tensors, list))[number]
    by_loss = orders_of(spec, importance_of("taylor", module, tensors, batches))[number]
    assert (by_size[0], by_loss[-1]) == (3, 3)


def test_a_loss_of_shares_of_classes() -> None:
    module = drawn("inverted")
    _, tensors = spec_of(module)
    whole = importance_of("taylor", module, tensors, batches)
    shares = importance_of(
        "taylor", module, tensors, lambda: [(x, functional.one_hot(y, 10).float()) for x, y in batches()]
    )
    torch.testing.assert_close(whole["0.0.weight"], shares["0.0.weight"])


def test_heads_are_moved_whole() -> None:
    spec, _ = spec_of(drawn("tokens"))
    uses = uses_of(spec)
    [number] = [i for i, group in enumerate(spec.groups) if group.name == "blocks.0.qkv"]
    widths = {(use.weight, use.axis, use.offset): use.width for use in uses[number]}
    assert widths == {
        ("blocks.0.qkv.weight", 0, 0): 16, ("blocks.0.qkv.weight", 0, 48): 16, ("blocks.0.qkv.weight", 0, 96): 16,
        ("blocks.0.qkv.bias", 0, 0): 16, ("blocks.0.qkv.bias", 0, 48): 16, ("blocks.0.qkv.bias", 0, 96): 16,
        ("blocks.0.proj.weight", 1, 0): 16,
    }  # fmt: skip


# -- with data ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def test_from_a_file_to_a_trained_supernet(file: Path, tmp_path: Path, hwnas_cli: Callable[..., Any]) -> None:
    words = ("elastic", f"{file}:with_example", "--data", "cluttered-digits", "--out", tmp_path / "elastic")
    ran = hwnas_cli(*words, "--importance", "l1", "--widths", "50%")
    assert ran.code == 0, ran.err
    assert "net-with_example@" in ran.out
    assert "0: 8, 16 channels" in ran.out
    assert "8 keeps its width: the output" in ran.out
    again = hwnas_cli(*words)
    assert (again.code, "already contains a supernet" in again.err) == (2, True)
    short = TrainConfig(phases=[Phase(name="all", steps=4, learning_rate=0.05)], batch_size=16, validate_every=0)
    trained = workflows.train(
        None, "cluttered-digits", tmp_path / "trained", init=tmp_path / "elastic", training=short,
        teacher=tmp_path / "elastic", accelerator="cpu",
    )  # fmt: skip
    before, _ = load_supernet(tmp_path / "elastic")
    after, facts = load_supernet(tmp_path / "trained")
    assert trained.space == before.space.name == after.space.name
    assert facts.training["started_from"]
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    evaluated = workflows.evaluate_subnets(tmp_path / "trained", images=100, calibration_images=100)
    assert [one.name for one in evaluated] == ["smallest", "largest"]
    arch = tmp_path / "arch.json"
    arch.write_text(json.dumps({"arch": dict(after.space.smallest)}))
    workflows.extract_subnet(arch, tmp_path / "trained", tmp_path / "subnet", calibration_images=100)
    tuned = workflows.finetune(tmp_path / "subnet", tmp_path / "tuned", training=short, accelerator="cpu")
    assert tuned.steps == 4


def test_the_best_order_is_chosen_by_accuracy(file: Path, tmp_path: Path) -> None:
    answer = workflows.elastic(f"{file}:with_example", "cluttered-digits", tmp_path / "elastic", widths=(0.5,))
    assert set(answer.judged) == {"l1", "bn", "taylor"}
    assert answer.judged[answer.importance] == max(answer.judged.values())
    assert answer.networks == 4


def test_a_torch_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    answer = workflows.elastic(
        module, "cluttered-digits", tmp_path / "elastic", shape=(1, 28, 28), importance="none", name="My network"
    )
    assert answer.space.startswith("my-network@")
    assert [(one.name, one.channels) for one in answer.widths] == [("0", [8, 16])]


@pytest.mark.parametrize(
    ("network", "more", "error", "words"),
    [
        ("{file}:broken", {}, ModelError, "net.py:broken raised RuntimeError: no weights here"),
        ("{file}:text", {}, ModelError, "returns the type str; it should return a torch module"),
        ("{file}:make", {}, InvalidValue, r"images is not known: give it \(--shape 3x224x224\)"),
        (
            "{file}:for_two",
            {},
            InvalidValue,
            "has 2 outputs, but cluttered-digits has 10 classes: replace its last layer",
        ),
        ("{file}:make", {"shape": (3, 32, 32)}, ModelError, r"torch.export cannot trace"),
        ("model.onnx", {}, ModelError, "is not a network that can be traced"),
        ("missing.pt2", {}, ModelError, "missing.pt2 is not a file of torch.export.save"),
        (
            "{file}:with_example",
            {"weights": "none.safetensors"},
            ModelError,
            "cannot load the weights none.safetensors",
        ),
        ("{file}:with_example", {"importance": "l2"}, UnknownName, "l2"),
        ("{file}:with_example", {"widths": (1.5,)}, InvalidValue, "above 0% and at most 100%, not 1.5"),
        ("{file}:with_example", {"keep": ("*",), "blocks": False}, ModelError, "nothing to shrink"),
    ],
)
def test_what_is_refused(
    file: Path, tmp_path: Path, network: str, more: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        workflows.elastic(network.format(file=file), "cluttered-digits", tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_a_training_that_starts_from_a_supernet_has_its_space(file: Path, tmp_path: Path) -> None:
    workflows.elastic(f"{file}:with_example", "cluttered-digits", tmp_path / "one", importance="none")
    for more, words in (
        ({"space": "mobilenetv3-tiny"}, "has a space"),
        ({"space": None, "fix": {"width_1": 8}}, "has a space"),
    ):
        with pytest.raises(InvalidValue, match=words):
            workflows.train(data="cluttered-digits", out=tmp_path / "two", init=tmp_path / "one", **more)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="--space is missing"):
        workflows.train(None, "cluttered-digits", tmp_path / "two")
    with pytest.raises(OutputError, match="already contains a supernet"):
        workflows.train(None, "cluttered-digits", tmp_path / "one", init=tmp_path / "one")


def test_shapes_and_shares_on_the_command_line(hwnas_cli: Callable[..., Any], file: Path, tmp_path: Path) -> None:
    words = ("elastic", f"{file}:make", "--data", "cluttered-digits", "--out", tmp_path / "out")
    for option, value, said in (("--shape", "3x32", "3x224x224"), ("--widths", "half", "25%,50%,75%")):
        ran = hwnas_cli(*words, option, value)
        assert (ran.code, said in ran.err) == (2, True)
