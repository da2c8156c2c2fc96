"""A traced network with images of several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from traceable import Basic, drawn, head, stem

from hwnas import workflows
from hwnas.errors import InvalidValue, ModelError
from hwnas.lowering import form_of
from hwnas.runtimes import open_session
from hwnas.spaces.traced import NetworkSpec, with_classes
from hwnas.supernet import Supernet, extract, load_supernet
from hwnas.targets import Recipe
from hwnas.tracing.choices import ElasticOptions
from hwnas.tracing.network import network_of
from hwnas.tracing.supernet import check_traced, supernet_of
from hwnas.tracing.trace import trace

SIDES = (16, 24)


def sized(name: str, width: int = 32) -> tuple[nn.Module, NetworkSpec, Supernet]:
    module = drawn(name)
    found = trace(module, (3, 32, width))
    smaller = [trace(module, (3, side, side * width // 32)) for side in SIDES]
    spec = network_of(found, name, ElasticOptions(shares=(0.5, 1.0)), smaller)
    tensors = {key: weight.tensor for key, weight in found.weights.items()}
    check_traced(module, spec, tensors)
    return module, spec, supernet_of(spec, tensors)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("residual", 32),
        ("dense", 32),
        *(pytest.param(*more, marks=pytest.mark.long) for more in (("residual", 64), ("inverted", 32))),
    ],
)
def test_subnets_of_all_sizes(name: str, width: int, recipe: Recipe) -> None:
    module, spec, supernet = sized(name, width)
    space = supernet.space
    assert space.variable("resolution").values == (16, 24, 32)
    form = form_of(recipe)
    with torch.no_grad():
        for side in (16, 24, 32):
            x = torch.randn(1, 3, side, side * width // 32)
            whole = space.arch({**space.largest, "resolution": side})
            assert torch.equal(supernet(x, whole), module(x))
            arch = space.arch({**space.decode(space.sample(1, seed=side))[0], "resolution": side})
            network = extract(supernet, arch)
            assert torch.equal(network(x), supernet(x, arch))
            with open_session(form.lower(network, space.input_shape(arch)), recipe) as session:
                np.testing.assert_allclose(session.run(x.numpy()), network(x).numpy(), atol=1e-4)
    costs = [int(space.macs(space.encode([space.arch({**space.largest, "resolution": s})]))[0]) for s in (16, 24, 32)]
    assert costs[0] < costs[1] < costs[2]
    assert NetworkSpec.model_validate_json(spec.json_text()) == spec
    assert with_classes(spec, 3).classes == 3


def test_one_size_leaves_the_file_as_it_was() -> None:
    found = trace(drawn("residual"), (3, 32, 32))
    assert "smaller" not in network_of(found, "n", ElasticOptions()).json_text()


class Positions(nn.Module):
    """Learned positions, as many as there are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 10)
        self.positions = nn.Parameter(torch.randn(1, 16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((self.patch(x).flatten(2).transpose(1, 2) + self.positions).mean(1))


class Deeper(nn.Module):
    """Another pooling for larger images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = stem(16), Basic(16, 16), head(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(self.stem(x))
        return self.head(nn.functional.max_pool2d(x, 2) if x.shape[-1] > 8 else x)


@pytest.mark.parametrize(
    ("module", "sides", "error", "said"),
    [
        (Positions(), (16,), ModelError, "Positions does not take images of 16 pixels"),
        (Deeper(), (16,), ModelError, r"the operations of deeper are others for images of 16 x 16 pixels"),
        (Deeper(), (64,), InvalidValue, r"a resolution is a height below 32 .*not 64"),
        (Deeper(), (0,), InvalidValue, r"not 0"),
    ],
)
def test_what_is_refused(
    module: nn.Module, sides: tuple[int, ...], error: type[Exception], said: str, tmp_path: Path
) -> None:
    data = type("Rgb", (), {"in_channels": 3, "classes": tuple("abcdefghij"), "name": "rgb"})()
    from hwnas.workflows.tracing import traced_of

    with pytest.raises(error, match=said):
        traced_of(module, data, shape=(3, 32, 32), resolutions=sides)


def test_as_a_supernet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    answer = workflows.elastic(
        module, "cluttered-digits", tmp_path / "net", shape=(1, 32, 32), resolutions=(24, 32), importance="l1"
    )
    assert answer.resolutions == [24, 32]
    supernet, _ = load_supernet(tmp_path / "net")
    assert supernet.space.variable("resolution").values == (24, 32)
