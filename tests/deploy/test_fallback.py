"""int8 within a bound on accuracy."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from hwnas.accuracy import Evaluator
from hwnas.accuracy.evaluate import logits
from hwnas.deploy.exporter import lower_subnet
from hwnas.deploy.parity import outputs
from hwnas.errors import GraphError
from hwnas.lowering.quantize import float_layers
from hwnas.runtimes import open_session
from hwnas.spaces import Space
from hwnas.targets import Recipe, load_recipe


def bounded(drop: float | None) -> Recipe:
    base = load_recipe("onnxruntime-cpu-int8")
    assert base.quantization is not None
    changes = {"images": 64, "method": "minmax", "activations": "int8", "max_accuracy_drop": drop}
    return base.model_copy(update={"quantization": base.quantization.model_copy(update=changes)})


def lopsided(network: nn.Module) -> nn.Module:
    """Hard for int8: before the first depthwise convolution one channel is 1,000 times as large as the others."""
    layers = list(network.modules())
    depthwise = next(layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.groups > 1)
    before = [layer for layer in layers[: layers.index(depthwise)] if isinstance(layer, nn.BatchNorm2d)][-1]
    with torch.no_grad():
        before.weight[0] *= 1e3
        before.bias[0] = before.bias[0] * 1e3 + 1e3 * before.weight[0].abs()  # not one that the ReLU shuts
        depthwise.weight[0] /= 1e3
    return network


class Labelled:
    """Data whose labels are what a network says: its accuracy is 1, and int8 can only lose."""

    def __init__(self, evaluator: Evaluator, network: nn.Module) -> None:
        self._data, self._network = evaluator.data, network

    def batches(self, split: str, resolution: int, limit: int | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
        given = list(self._data.batches(split, resolution, limit=limit))  # type: ignore[arg-type]
        return [(x, logits(self._network, [(x, y)])[0].argmax(dim=1)) for x, y in given]


@pytest.fixture
def hard(evaluator: Evaluator, space: Space, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    network = lopsided(evaluator.subnet(space.smallest))
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    x = evaluator.data.batches("validation", space.smallest["resolution"], limit=500)
    with torch.no_grad():
        last.bias -= logits(network, x)[0].mean(dim=0)  # after six steps of training one class would win on every image
    monkeypatch.setattr(evaluator, "data", Labelled(evaluator, network))
    return network


def test_without_need_nothing_falls_back(evaluator: Evaluator, space: Space) -> None:
    network = evaluator.subnet(space.smallest)
    bound, free = (lower_subnet(network, evaluator, space.smallest, bounded(drop)) for drop in (0.9, None))
    assert bound == free
    assert isinstance(bound, onnx.ModelProto)
    assert float_layers(bound) == []


def test_layers_fall_back_until_the_bound_holds(evaluator: Evaluator, space: Space, hard: nn.Module) -> None:
    def agreement(program: object) -> float:
        with open_session(program, bounded(None)) as session:  # type: ignore[arg-type]
            batches = evaluator.data.batches("validation", space.smallest["resolution"], limit=evaluator.images)
            hits = [torch.from_numpy(outputs(session, x.numpy())).argmax(dim=1) == y for x, y in batches]
        return float(torch.cat(hits).double().mean())

    lost = 1 - agreement(lower_subnet(hard, evaluator, space.smallest, bounded(None)))
    assert lost > 0.02
    told = []
    recipe = bounded(lost / 2)
    program = lower_subnet(hard, evaluator, space.smallest, recipe, progress=lambda what, *_: told.append(what))
    assert isinstance(program, onnx.ModelProto)
    layers = [node for node in program.graph.node if node.op_type in ("Conv", "Gemm")]
    assert 0 < len(float_layers(program)) < len(layers)
    assert 1 - agreement(program) <= lost / 2
    assert any(what.startswith("keeping layers in float") for what in told)


def test_a_bound_that_does_not_hold(
    evaluator: Evaluator, space: Space, hard: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.deploy.fallback._STEPS", 2)  # half of the layers, which are not enough
    with pytest.raises(GraphError, match=r"allows int8 to cost 0\.00% of accuracy, but on 500 .* layers in float"):
        lower_subnet(hard, evaluator, space.smallest, bounded(0.0))
