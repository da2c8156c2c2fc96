"""Parts of shared tensors against torch's own slices and products."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from hwnas.nn.parts import Part, _Shrunk, take

STEPS = {5: ((7, 5),), 3: ((7, 5), (5, 3))}


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Random tensors, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def by_slices(kernels: Tensor, channels: int, *matrices: Tensor) -> Tensor:
    """What `take` computes, an operation at a time, from 7x7 kernels."""
    out = kernels[:channels]
    for matrix in matrices:
        side = round(len(matrix) ** 0.5)
        margin = (out.shape[-1] - side) // 2
        centre = out[..., margin : margin + side, margin : margin + side]
        out = (centre.flatten(2) @ matrix.T).unflatten(2, (side, side))
    return out


def test_parts_are_the_first_channels() -> None:
    """Along as many axes as are named; no copies."""
    (weight, scale) = tensors((6, 4, 3, 3), (6,))
    parts = take([Part((slice(4), slice(2))), Part((slice(5),))], [weight, scale])
    assert torch.equal(parts[0], weight[:4, :2])
    assert torch.equal(parts[1], scale[:5])
    assert [part.data_ptr() for part in parts] == [weight.data_ptr(), scale.data_ptr()]


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("side", [5, 3])
def test_kernels_pass_through_their_transformations(side: int, inputs: int) -> None:
    """Values and gradients are those of one step after the other, for depthwise and for full convolutions."""
    kernels, five, three = tensors((6, inputs, 7, 7), (25, 25), (9, 9))
    given = [kernels, five, three][: 1 + len(STEPS[side])]
    (taken,) = take([Part((slice(4),), STEPS[side])], given)
    expected = by_slices(kernels, 4, *given[1:])
    torch.testing.assert_close(taken, expected, rtol=0, atol=1e-13)
    weights = torch.arange(expected.numel(), dtype=torch.float64).view_as(expected)
    for ours, theirs in zip(
        torch.autograd.grad((taken * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)


def test_gradients_are_right() -> None:
    """Against finite differences, with several parts in one node."""
    given = tensors((3, 1, 7, 7), (25, 25), (9, 9), (4, 3, 1, 1), (4,))
    parts = [Part((slice(2),), STEPS[3]), Part((slice(3), slice(2))), Part((slice(1),))]
    assert torch.autograd.gradcheck(lambda *given: take(parts, given), given)


def test_what_is_left_out_has_gradients_of_0() -> None:
    """Channels beyond a part are not changed by it."""
    (weight,) = tensors((6, 4, 1, 1))
    take([Part((slice(4), slice(2)))], [weight])[0].sum().backward()
    assert weight.grad is not None
    assert weight.grad.sum() == 8
    assert weight.grad[:4, :2].sum() == 8


def test_transformations_keep_their_precision_in_autocast() -> None:
    """Mixed precision is for convolutions; kernels of half precision would lose what the transformations learned."""
    given = tensors((6, 1, 7, 7), (25, 25), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (taken,) = take([Part((slice(4),), STEPS[5])], given)
    assert taken.dtype == torch.float32
    assert torch.equal(taken, take([Part((slice(4),), STEPS[5])], given)[0])
    taken.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.dtype == torch.float32 for tensor in given)


def test_a_node_is_freed() -> None:
    """With what it computed from: a training takes millions of them."""
    given = tensors((6, 1, 7, 7), (25, 25), (9, 9), (4, 1, 7, 7), (25, 25))
    before = live()
    for _ in range(3):
        small, large = take([Part((slice(4),), STEPS[3]), Part((slice(2),), STEPS[5])], given)
        (small.sum() + large.sum()).backward()
        del small, large
    assert live() == before


def live() -> int:
    """Nodes that hold kernels; supernets of other tests keep those of their last pass."""
    gc.collect()
    return sum(type(found) is _Shrunk for found in gc.get_objects())
