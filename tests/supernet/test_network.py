from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from hwnas.errors import InvalidValue
from hwnas.spaces import SPACES, make_space
from hwnas.supernet import Supernet, extract

TINY = make_space("mobilenetv3-tiny")
Drawn, Images = Callable[[str], Supernet], Callable[..., torch.Tensor]


# The smaller ones of a kind say the same of cells, and take seconds.
quick = pytest.mark.parametrize(
    "name", [name for name in SPACES if name not in ("nasbench201", "darts", "autoformer-small", "encoder")]
)


@quick
def test_the_extracted_network_computes_the_same(name: str, drawn: Drawn, images: Images) -> None:
    supernet = drawn(name)
    space = supernet.space
    archs = space.decode(space.sample(2, seed=1))
    if name == "mobilenetv3-tiny":
        archs += [space.smallest, space.largest, *space.decode(space.sample(6, seed=2))]
    spread = []
    for arch in archs:
        x = images(arch, space.in_channels)
        subnet = extract(supernet, arch)
        assert not subnet.training
        with torch.no_grad():
            ours, theirs = supernet(x, arch), subnet(x)
        assert ours.shape == (2, space.classes)
        assert theirs.dtype == torch.float64
        torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
        spread.append((ours[0] - ours[1]).abs().max().item())
    assert min(spread) > 1e-4  # networks that ignore their input would agree too


@pytest.mark.long
@pytest.mark.parametrize("name", SPACES)
def test_networks_in_single_precision(name: str, drawn: Drawn, images: Images) -> None:
    supernet = copy.deepcopy(drawn(name)).float()
    space = supernet.space
    codes = space.sample(25, seed=4)  # 200 take 9 minutes for all spaces
    worst = 0.0
    for arch, params in zip(space.decode(codes), space.params(codes).tolist(), strict=True):
        x = images(arch, space.in_channels, n=1)
        x = x.float() if x.is_floating_point() else x
        subnet = extract(supernet, arch)
        assert sum(p.numel() for p in subnet.parameters()) == params
        with torch.no_grad():
            worst = max(worst, (supernet(x, arch) - subnet(x)).abs().max().item())
    print(f"{name}: outputs differ by up to {worst:.2g}")
    assert worst <= 1e-5


@quick
def test_an_extracted_network_is_torch_alone(name: str, drawn: Drawn) -> None:
    space = drawn(name).space
    [arch] = space.decode(space.sample(1, seed=3))
    subnet = extract(drawn(name), arch)
    assert {type(module).__module__.split(".")[0] for module in subnet.modules()} == {"torch"}
    [params] = space.params(space.encode([arch]))
    assert sum(p.numel() for p in subnet.parameters()) == params


def test_an_extracted_network_has_its_own_weights(drawn: Drawn, images: Images) -> None:
    supernet = copy.deepcopy(drawn("mobilenetv3-tiny"))
    arch = TINY.largest
    subnet = extract(supernet, arch)
    x = images(arch, 1)
    before = subnet(x)
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            tensor.zero_()
    assert torch.equal(subnet(x), before)
    subnet(x).sum().backward()
    assert all(p.grad is not None for p in subnet.parameters())
    assert all(p.grad is None for p in supernet.parameters())


def test_a_supernet_under_training_gives_a_network_for_evaluation(drawn: Drawn, images: Images) -> None:
    supernet = copy.deepcopy(drawn("mobilenetv3-tiny")).float().train()
    arch = TINY.smallest
    subnet = extract(supernet, arch)
    assert supernet.training
    assert not any(module.training for module in subnet.modules())
    x = images(arch, 1).float()
    torch.testing.assert_close(subnet(x), supernet.eval()(x, arch))


def test_a_network_follows_its_arch(drawn: Drawn, images: Images) -> None:
    supernet = drawn("mobilenetv3-tiny")
    base = dict(TINY.largest)
    x = images(TINY.largest, 1)
    outputs = [supernet(x, TINY.arch(base | change)) for change in ({}, {"depth_2": 2}, {"kernel_3_3": 5})]
    outputs.append(supernet(x, TINY.arch(base | {"expansion_1_2": 2})))
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert (one - other).abs().max() > 1e-6


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 32, 32), (2, 1, 32, 24)])
def test_images_of_another_form_are_refused(shape: tuple[int, ...], drawn: Drawn) -> None:
    with pytest.raises(InvalidValue, match=r"takes images \(n, 1, 32, 32\), not"):
        drawn("mobilenetv3-tiny")(torch.zeros(shape, dtype=torch.float64), TINY.largest)


def test_initial_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = Supernet(TINY, seed=4).state_dict()
    torch.manual_seed(2)
    same, other = Supernet(TINY, seed=4).state_dict(), Supernet(TINY, seed=5).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_restricted_space_makes_a_smaller_supernet(images: Images) -> None:
    space = TINY.fix(depth_1=1, kernel_2_1=[3, 5], expansion_2_1=2)
    supernet = Supernet(space)
    assert "stage1_block2" not in supernet.slots
    state = supernet.state_dict()
    assert state["slots.stage2_block1.shared.layers.depthwise.conv.weight"].shape == (32, 1, 5, 5)
    assert "slots.stage2_block1.transforms.layers_depthwise_conv_weight_5to3" in state
    for arch in (space.smallest, space.largest, *space.decode(space.sample(4, seed=0))):
        x = images(arch, 1).float()
        torch.testing.assert_close(extract(supernet.eval(), arch)(x), supernet(x, arch))


def test_weights_are_shared_between_networks(drawn: Drawn, images: Images) -> None:
    supernet = copy.deepcopy(drawn("mobilenetv3-tiny"))
    # Beside the transforms of kernels, a supernet holds what its largest network holds.
    shared = [p.numel() for name, p in supernet.named_parameters() if ".transforms." not in name]
    [params] = TINY.params(TINY.encode([TINY.largest]))
    assert sum(shared) == params
    x, arch = images(TINY.smallest, 1), TINY.smallest
    before = supernet(x, arch)
    with torch.no_grad():
        supernet.get_parameter("slots.stage3_block1.shared.layers.project.conv.weight")[:, :64].neg_()
    assert (supernet(x, arch) - before).abs().max() > 1e-6


def test_an_arch_outside_the_space_is_refused() -> None:
    """A larger op would otherwise be cut down to what is stored."""
    space = make_space("mobilenetv3-tiny")
    supernet = Supernet(space.fix(kernel_1_1=[3, 5], expansion_2_1=2))
    outside = [space.arch({**space.smallest, name: value}) for name, value in (("kernel_1_1", 7), ("expansion_2_1", 3))]
    for arch in outside:
        with pytest.raises(InvalidValue, match=r"the supernet has no weights for .*: the arch is outside its space"):
            supernet(torch.zeros(2, 1, 24, 24), arch)
        with pytest.raises(InvalidValue, match=r"the supernet has no weights for .*: the arch is outside its space"):
            extract(supernet, arch)
