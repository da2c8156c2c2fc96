"""The gradient of depthwise convolutions by a matrix product is that of torch."""

import itertools

import pytest
import torch
from torch import nn

from hwnas.nn import build, depthwise
from hwnas.nn.depthwise import DepthwiseConv2d, speed_up_depthwise
from hwnas.spaces import make_space
from hwnas.supernet import Supernet, extract

GEOMETRIES = [
    *((7, 1, 1, (4, 4)), (7, 2, 1, (6, 6)), (5, 1, 1, (3, 3)), (5, 2, 1, (4, 3)), (3, 1, 1, (2, 1)), (3, 1, 2, (4, 4))),
    (5, 2, 2, (8, 7)),
]


def layers(kernel, stride, dilation, channels=6):
    """The same depthwise convolution twice: torch's own, and ours."""
    torch.manual_seed(kernel)
    torchs = nn.Conv2d(
        channels, channels, kernel, stride, dilation * (kernel // 2), dilation, groups=channels, bias=False
    )
    ours = speed_up_depthwise(
        nn.Sequential(nn.Conv2d(*[channels] * 2, kernel, stride, torchs.padding, dilation, channels, bias=False))
    )
    ours[0].load_state_dict(torchs.state_dict())
    return torchs, ours[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "size"), GEOMETRIES)
def test_outputs_and_gradients_are_those_of_torch(kernel, stride, dilation, size, layout):
    torchs, ours = layers(kernel, stride, dilation)
    images = torch.randn(5, 6, *size).contiguous(memory_format=layout)
    found = []
    for layer in (torchs, ours):
        x = images.clone().requires_grad_()
        y = layer(x)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        found.append((y, x.grad, layer.weight.grad))
    assert "_SmallDepthwise" in ours(images).grad_fn.name()
    assert torch.equal(found[0][0], found[1][0])
    for expected, got in itertools.islice(zip(*found, strict=True), 1, None):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation", "size"), GEOMETRIES[:4:3])
def test_gradients_of_gradients_are_right(kernel, stride, dilation, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)

    def convolved(x, weight):
        return depthwise._SmallDepthwise.apply(x, weight, stride, dilation * (kernel // 2), dilation)

    assert torch.autograd.gradcheck(convolved, (x, weight))
    assert torch.autograd.gradgradcheck(convolved, (x, weight))


def test_only_where_the_image_is_smaller_than_the_kernel():
    _, ours = layers(7, 1, 1)
    for size, small in ((6, True), (7, False), (16, False)):
        assert ("_SmallDepthwise" in ours(torch.randn(2, 6, size, size)).grad_fn.name()) == small
    with torch.no_grad():
        assert ours(torch.randn(2, 6, 4, 4)).grad_fn is None
    with torch.autocast("cpu", torch.bfloat16):
        assert "_SmallDepthwise" not in ours(torch.randn(2, 6, 4, 4)).grad_fn.name()


def test_frozen_weights_or_images_get_no_gradient():
    _, ours = layers(5, 1, 1)
    x = torch.randn(2, 6, 3, 3, requires_grad=True)
    ours.weight.requires_grad_(False)
    ours(x).sum().backward()
    assert ours.weight.grad is None
    assert x.grad is not None
    ours.weight.requires_grad_(True)
    ours(x.detach()).sum().backward()
    assert ours.weight.grad is not None


def test_supernets_train_with_it_and_networks_are_of_torchs_own_layers():
    space = make_space("mobilenetv3-tiny", in_channels=1, classes=10)
    supernet, arch = Supernet(space, seed=0), space.largest
    [node] = [node for node in space.network(arch) if node.op.kind == "mbconv"][-1:]
    module = supernet.elastic(node.name, node.op).skeleton(node.op).module
    assert any(isinstance(layer, DepthwiseConv2d) for layer in module.modules())
    for plain in (extract(supernet, arch), build(node.op)):
        assert not any(isinstance(layer, DepthwiseConv2d) for layer in plain.modules())
