from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from hwnas.spaces import Arch, make_space
from hwnas.spaces.kinds import squeeze_width
from hwnas.supernet import Supernet
from hwnas.supernet.sort import channel_orders, reorder

Drawn, Images = Callable[[str], Supernet], Callable[..., torch.Tensor]
TINY = make_space("mobilenetv3-tiny")


def outputs(supernet: Supernet, arch: Arch, images: Images) -> torch.Tensor:
    with torch.no_grad():
        return supernet(images(arch, supernet.space.in_channels), arch)


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "mobilenetv3", pytest.param("resnet50", marks=pytest.mark.long)])
def test_what_was_trained_computes_the_same(name: str, drawn: Drawn, images: Images) -> None:
    supernet = copy.deepcopy(drawn(name))
    space = supernet.space
    widest = {v.name: v.values[-1] for v in space.variables if v.name.startswith("expansion")}
    trained = space.fix(**widest)
    archs = [trained.largest, *trained.decode(trained.sample(2, seed=0))]
    before = [outputs(supernet, arch, images) for arch in archs]
    narrow = outputs(supernet, space.smallest, images)
    orders = channel_orders(supernet, trained)
    assert orders
    reorder(supernet.state_dict(), orders)
    for arch, expected in zip(archs, before, strict=True):
        torch.testing.assert_close(outputs(supernet, arch, images), expected, rtol=1e-9, atol=1e-9)
    assert (outputs(supernet, space.smallest, images) - narrow).abs().max() > 1e-3  # it inherits other channels


def test_the_most_important_channels_stand_first(drawn: Drawn) -> None:
    supernet = copy.deepcopy(drawn("mobilenetv3-tiny"))
    trained = TINY.fix(**{name: 4 for name in TINY.choices if name.startswith("expansion")})
    reorder(supernet.state_dict(), channel_orders(supernet, trained))
    prefix = "slots.stage2_block2.shared.layers."
    for reader in ("project.conv.weight", "se.expand.weight"):
        importance = supernet.state_dict()[prefix + reader].abs().sum(dim=(0, 2, 3))
        assert torch.equal(importance, importance.sort(descending=True).values)


def test_narrower_networks_that_were_trained_keep_their_channels(drawn: Drawn, images: Images) -> None:
    supernet = copy.deepcopy(drawn("mobilenetv3-tiny"))
    trained = TINY.fix(**{name: [3, 4] for name in TINY.choices if name.startswith("expansion")})
    archs = [trained.largest, trained.smallest, *trained.decode(trained.sample(4, seed=0))]
    before = [outputs(supernet, arch, images) for arch in archs]
    reorder(supernet.state_dict(), channel_orders(supernet, trained))
    for arch, expected in zip(archs, before, strict=True):
        torch.testing.assert_close(outputs(supernet, arch, images), expected, rtol=1e-9, atol=1e-9)
    weight = supernet.state_dict()["slots.stage2_block2.shared.layers.project.conv.weight"]
    importance = weight.abs().sum(dim=(0, 2, 3))
    for part in (importance[:96], importance[96:]):  # 3 and 4 times 32 channels
        assert torch.equal(part, part.sort(descending=True).values)
    assert squeeze_width(96) < squeeze_width(128)


def test_a_second_sorting_changes_nothing(drawn: Drawn) -> None:
    supernet = copy.deepcopy(drawn("mobilenetv3-tiny"))
    trained = TINY.fix(**{name: 4 for name in TINY.choices if name.startswith("expansion")})
    reorder(supernet.state_dict(), channel_orders(supernet, trained))
    once = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    reorder(supernet.state_dict(), channel_orders(supernet, trained))
    assert all(torch.equal(tensor, once[name]) for name, tensor in supernet.state_dict().items())
