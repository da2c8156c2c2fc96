"""The modules of cells, against the same written out in functions of torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from hwnas.nn import build
from hwnas.spaces import parse_op


def made(key: str) -> tuple[nn.Module, dict[str, Tensor], Tensor]:
    """A module in evaluation mode with BN of its own, its tensors by name, and images for it."""
    op = parse_op(key)
    torch.manual_seed(0)
    module = build(op).double().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for name, tensor in layer.state_dict().items():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5) if name in ("weight", "running_var") else tensor.normal_()
    return module, dict(module.state_dict()), torch.randn(2, *op.input, dtype=torch.float64)


def bn(x: Tensor, state: dict[str, Tensor], prefix: str) -> Tensor:
    weight, bias, mean, variance = (
        state[f"{prefix}.{name}"].view(-1, 1, 1) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def test_relu_conv() -> None:
    module, state, x = made("relu-conv 3x6x6>5x6x6 kernel=3 stride=1")
    torch.testing.assert_close(module(x), bn(F.conv2d(x.relu(), state["conv.weight"], padding=1), state, "bn"))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_separable_convolution(kernel: int, stride: int) -> None:
    side = 8 // stride
    module, state, x = made(f"sep-conv 4x8x8>6x{side}x{side} kernel={kernel} stride={stride}")
    y, half = x, kernel // 2
    for name, step in (("first", stride), ("second", 1)):
        y = F.conv2d(y.relu(), state[f"{name}.depthwise.weight"], stride=step, padding=half, groups=4)
        y = bn(F.conv2d(y, state[f"{name}.pointwise.weight"]), state, f"{name}.bn")
    torch.testing.assert_close(module(x), y)
    assert y.shape == (2, 6, side, side)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_dilated_convolution(kernel: int, stride: int) -> None:
    side = 8 // stride
    module, state, x = made(f"dil-conv 4x8x8>6x{side}x{side} kernel={kernel} stride={stride}")
    # Every second pixel: a kernel with zeros between, on an image with as many around.
    wide = torch.zeros(4, 1, 2 * kernel - 1, 2 * kernel - 1, dtype=torch.float64)
    wide[:, :, ::2, ::2] = state["depthwise.weight"]
    y = F.conv2d(F.pad(x.relu(), [kernel - 1] * 4), wide, stride=stride, groups=4)
    torch.testing.assert_close(module(x), bn(F.conv2d(y, state["pointwise.weight"]), state, "bn"))
    assert y.shape == (2, 4, side, side)


@pytest.mark.parametrize("out", [6, 7])
def test_factorized_reduce_reads_even_and_odd_pixels(out: int) -> None:
    module, state, x = made(f"factorized-reduce 4x8x8>{out}x4x4")
    x = x.requires_grad_()
    halves = []
    for name, first in (("even", 0), ("odd", 1)):
        pixels = x.relu()[:, :, first::2, first::2]
        y = torch.einsum("oi,nihw->nohw", state[f"{name}.conv.weight"][:, :, 0, 0], pixels)
        halves.append(bn(y, state, f"{name}.bn"))
    y = module(x)
    torch.testing.assert_close(y, torch.cat(halves, dim=1))
    assert (halves[0].shape, halves[1].shape) == ((2, out // 2, 4, 4), (2, out - out // 2, 4, 4))
    # As the authors write it, with one BN over both.
    names = ("weight", "bias", "running_mean", "running_var")
    whole = {f"bn.{n}": torch.cat([state[f"{half}.bn.{n}"] for half in ("even", "odd")]) for n in names}
    parts = zip((x.relu(), x.relu()[:, :, 1:, 1:]), ("even", "odd"), strict=True)
    both = torch.cat([F.conv2d(part, state[f"{half}.conv.weight"], stride=2) for part, half in parts], dim=1)
    torch.testing.assert_close(y, bn(both, whole, "bn"))


@pytest.mark.parametrize("side", [8, 7])
def test_the_block_between_stages_of_nasbench201(side: int) -> None:
    half = (side + 1) // 2
    module, state, x = made(f"basic-block 3x{side}x{side}>6x{half}x{half} kernel=3 stride=2")
    y = bn(F.conv2d(x.relu(), state["layers.first.conv.weight"], stride=2, padding=1), state, "layers.first.bn")
    y = bn(F.conv2d(y.relu(), state["layers.second.conv.weight"], padding=1), state, "layers.second.bn")
    # The mean of what there is of each 2x2.
    ones, doubled = torch.ones_like(x), [0, side % 2, 0, side % 2]
    pooled = F.avg_pool2d(F.pad(x, doubled), 2) / F.avg_pool2d(F.pad(ones, doubled), 2)
    torch.testing.assert_close(module(x), y + F.conv2d(pooled, state["shortcut.conv.weight"]))


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling(stride: int) -> None:
    side = 6 // stride
    mean, _, x = made(f"avgpool 2x6x6>2x{side}x{side} kernel=3 stride={stride}")
    largest, _, _ = made(f"maxpool 2x6x6>2x{side}x{side} kernel=3 stride={stride}")
    for n, c, i, j in torch.cartesian_prod(*(torch.arange(k) for k in (2, 2, side, side))).tolist():
        top, left = i * stride, j * stride
        window = x[n, c, max(top - 1, 0) : top + 2, max(left - 1, 0) : left + 2]  # without what lies outside
        torch.testing.assert_close(mean(x)[n, c, i, j], window.mean())
        assert largest(x)[n, c, i, j] == window.max()


@pytest.mark.parametrize("terms", [1, 2, 4])
def test_sum_and_concat(terms: int) -> None:
    xs = list(torch.randn(terms, 2, 3, 4, 4, dtype=torch.float64))
    module = build(parse_op(f"sum 3x4x4>3x4x4 terms={terms}"))
    torch.testing.assert_close(module(*xs), torch.stack(xs).sum(dim=0))
    module = build(parse_op(f"concat 3x4x4>{3 * terms}x4x4 terms={terms}"))
    y = module(*xs)
    assert y.shape == (2, 3 * terms, 4, 4)
    for i, x in enumerate(xs):
        assert torch.equal(y[:, 3 * i : 3 * i + 3], x)
    with pytest.raises(TypeError):
        module(*xs, xs[0])


@pytest.mark.parametrize(("stride", "side"), [(1, 5), (2, 5), (2, 4)])
def test_zeros(stride: int, side: int) -> None:
    small = -(-side // stride)
    module = build(parse_op(f"zero 3x{side}x{side}>3x{small}x{small} stride={stride}"))
    x = torch.randn(2, 3, side, side, requires_grad=True)
    y = module(x)
    assert torch.equal(y, torch.zeros(2, 3, small, small))
    y.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


def test_the_classifier_of_nasbench201() -> None:
    module, state, x = made("bn-linear 4x3x3>5")
    features = bn(x, state, "bn").relu().mean(dim=(2, 3))
    torch.testing.assert_close(module(x), features @ state["linear.weight"].T + state["linear.bias"])
