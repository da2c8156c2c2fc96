"""BN folded into the convolution before it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from hwnas.nn.norm import fold_batch_norms
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, extract


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "nasbench201-tiny", "darts-tiny", "resnet50"])
def test_folding_finds_what_tracing_finds(name: str) -> None:
    space = make_space(name)
    small = {"resolution": space.smallest["resolution"]} if name == "resnet50" else {}
    arch = space.arch({**space.decode(space.sample(1, seed=4))[0], **small})
    network = extract(Supernet(space, seed=0), arch).eval()
    generator = torch.Generator().manual_seed(0)
    for layer in norms(network):
        for tensor, low, high in ((layer.running_mean, -1, 1), (layer.running_var, 0.5, 2), (layer.weight, 0.5, 1.5)):
            assert tensor is not None
            tensor.data.uniform_(low, high, generator=generator)
    side = arch["resolution"]
    images = torch.randn(2, space.in_channels, side, side, generator=generator)
    with torch.inference_mode():
        before, traced = network(images), fuse(network)
        folded = fold_batch_norms(network)
        assert torch.equal(folded(images), traced(images))
        torch.testing.assert_close(folded(images), before, rtol=1e-4, atol=1e-5)
    assert len(norms(folded)) == len(norms(traced)) <= 1
