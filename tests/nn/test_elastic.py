from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hwnas.nn import Elastic
from hwnas.spaces import Op, make_space, parse_op
from hwnas.spaces.ops import make_op

WIDTHS = {2: 32, 3: 48, 6: 96}
KERNELS = (3, 5, 7)


def block(kernel: int, mid: int, *, side: int = 10, se: int = 1) -> Op:
    shape = (16, side, side)
    return make_op("mbconv", shape, shape, mid=mid, kernel=kernel, stride=1, act="hswish", expand=1, se=se, skip=1)


CHOICES = list(itertools.product(KERNELS, WIDTHS.values()))


@pytest.fixture
def elastic() -> Elastic:
    """Float64, with every number drawn at random: identities and zeros would hide what is left out."""
    made = Elastic(block(k, m) for k, m in CHOICES).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0, 0.3, generator=generator)
    return made.eval()


def sliced(elastic: Elastic, op: Op, x: Tensor) -> Tensor:
    """The block in evaluation mode, written out on the shared tensors (once-for-all's README says how)."""
    w = dict(elastic.shared.named_parameters()) | dict(elastic.shared.named_buffers())
    mid, kernel, out = op.number("mid"), op.number("kernel"), op.output[0]
    squeezed = max(8, int(mid // 4 + 4) // 8 * 8)

    def bn(y: Tensor, name: str, n: int) -> Tensor:
        numbers = [w[f"layers.{name}.bn.{part}"][:n] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, var, scale, shift = (v.view(1, n, 1, 1) for v in numbers)
        return (y - mean) / torch.sqrt(var + 1e-5) * scale + shift

    def hswish(y: Tensor) -> Tensor:
        return y * (y + 3).clamp(0, 6) / 6

    y = F.conv2d(x, w["layers.expand.conv.weight"][:mid, : op.input[0]])
    y = hswish(bn(y, "expand", mid))
    depthwise = w["layers.depthwise.conv.weight"][:mid]
    transforms = {name.rsplit("_", 1)[-1]: t for name, t in elastic.transforms.items()}
    if kernel <= 5:
        centre = depthwise[:, :, 1:6, 1:6].reshape(mid, 1, 25)
        depthwise = (centre @ transforms["7to5"].T).reshape(mid, 1, 5, 5)
    if kernel == 3:
        centre = depthwise[:, :, 1:4, 1:4].reshape(mid, 1, 9)
        depthwise = (centre @ transforms["5to3"].T).reshape(mid, 1, 3, 3)
    y = hswish(bn(F.conv2d(y, depthwise, padding=kernel // 2, groups=mid), "depthwise", mid))
    gate = y.mean(dim=(2, 3), keepdim=True)
    gate = F.conv2d(gate, w["layers.se.reduce.weight"][:squeezed, :mid], w["layers.se.reduce.bias"][:squeezed])
    gate = F.conv2d(F.relu(gate), w["layers.se.expand.weight"][:mid, :squeezed], w["layers.se.expand.bias"][:mid])
    y = y * ((gate + 3).clamp(0, 6) / 6)
    y = bn(F.conv2d(y, w["layers.project.conv.weight"][:out, :mid]), "project", out)
    return x + y


def images(op: Op, n: int = 3) -> Tensor:
    return torch.randn(n, *op.input, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kernel", "mid"), CHOICES)
def test_a_block_computes_on_slices_of_the_shared_weights(elastic: Elastic, kernel: int, mid: int) -> None:
    op = block(kernel, mid)
    x = images(op)
    torch.testing.assert_close(elastic(x, op), sliced(elastic, op, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "mid"), CHOICES)
def test_gradients_reach_the_shared_weights(elastic: Elastic, kernel: int, mid: int) -> None:
    op = block(kernel, mid)
    x = images(op)
    names, leaves = zip(*elastic.named_parameters(), strict=True)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), leaves, allow_unused=True)
        for y in (elastic(x, op), sliced(elastic, op, x))
    )
    for name, one, other in zip(names, ours, theirs, strict=True):
        assert (one is None) == (other is None), name
        if one is not None and other is not None:
            # No tighter: torch's gradient of the hard sigmoid takes 1/6 in single precision.
            assert (one - other).abs().max() <= 1e-6 * other.abs().max(), name
    reached = {name for name, gradient in zip(names, ours, strict=True) if gradient is not None and gradient.any()}
    unreached = set(names) - reached
    prefix = "transforms.layers_depthwise_conv_weight_"
    steps = {7: [], 5: ["7to5"], 3: ["7to5", "5to3"]}[kernel]
    assert unreached == {prefix + step for step in ("7to5", "5to3") if step not in steps}


def test_channels_beyond_the_op_are_left_alone(elastic: Elastic) -> None:
    op = block(5, 48)
    elastic(images(op), op).sum().backward()
    expand = elastic.shared.get_parameter("layers.expand.conv.weight").grad
    depthwise = elastic.shared.get_parameter("layers.depthwise.conv.weight").grad
    assert expand is not None
    assert depthwise is not None
    assert (expand[:48].abs().amax(dim=(1, 2, 3)) > 0).all()
    assert not expand[48:].any()
    assert not depthwise[48:].any()
    assert depthwise[:48, :, 1:6, 1:6].any()
    ring = depthwise.clone()
    ring[:, :, 1:6, 1:6] = 0
    assert not ring.any()


def test_fresh_transforms_are_centre_crops() -> None:
    made = Elastic(block(k, 32) for k in KERNELS)
    name = "layers.depthwise.conv.weight"
    whole = made.shared.state_dict()[name]
    assert torch.equal(made.state(block(5, 32))[name], whole[..., 1:6, 1:6])
    assert torch.equal(made.state(block(3, 32))[name], whole[..., 2:5, 2:5])


def test_a_kernel_that_is_left_out_has_no_step() -> None:
    made = Elastic([block(7, 32), block(3, 32)])
    assert {name: tuple(t.shape) for name, t in made.transforms.items()} == {
        "layers_depthwise_conv_weight_7to3": (9, 9)
    }
    assert made(torch.randn(1, 16, 10, 10), block(3, 32)).shape == (1, 16, 10, 10)
    assert not Elastic([block(3, 32)]).transforms


def test_bn_statistics_move_only_in_the_first_channels(elastic: Elastic) -> None:
    op = block(7, 48)
    before = {name: buffer.clone() for name, buffer in elastic.shared.named_buffers()}
    elastic.train()
    x = images(op, n=8)
    elastic(x, op)
    after = dict(elastic.shared.named_buffers())
    for part in ("running_mean", "running_var"):
        for layer in ("expand", "depthwise"):
            name = f"layers.{layer}.bn.{part}"
            assert (after[name][:48] != before[name][:48]).all()
            assert torch.equal(after[name][48:], before[name][48:])
        assert (after[f"layers.project.bn.{part}"] != before[f"layers.project.bn.{part}"]).all()
    y = F.conv2d(x, elastic.shared.get_parameter("layers.expand.conv.weight")[:48])
    name = "layers.expand.bn.running_mean"
    expected = 0.9 * before[name][:48] + 0.1 * y.mean(dim=(0, 2, 3))
    torch.testing.assert_close(after[name][:48], expected.detach())
    name = "layers.expand.bn.num_batches_tracked"
    assert after[name] == before[name] + 1


def test_evaluation_reads_the_statistics_that_training_left(elastic: Elastic) -> None:
    op = block(3, 96)
    x = images(op)
    elastic.train()
    trained = elastic(x, op)
    elastic.eval()
    torch.testing.assert_close(elastic(x, op), sliced(elastic, op, x), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(elastic(x, op), trained)
    assert torch.equal(elastic(x[:1], op), elastic(x, op)[:1])


def test_one_set_of_weights_serves_every_image_size(elastic: Elastic) -> None:
    for side in (4, 7, 13):
        op = block(5, 32, side=side)
        x = images(op)
        torch.testing.assert_close(elastic(x, op), sliced(elastic, op, x), rtol=1e-10, atol=1e-10)


def test_the_state_is_a_view_and_not_a_copy(elastic: Elastic) -> None:
    op = block(7, 32)
    state = elastic.state(op)
    weight = elastic.shared.get_parameter("layers.project.conv.weight")
    assert state["layers.project.conv.weight"].data_ptr() == weight.data_ptr()
    assert state["layers.project.conv.weight"].shape == (16, 32, 1, 1)


@pytest.mark.parametrize(
    "stranger",
    [
        parse_op("conv 16x10x10>16x10x10 act=relu kernel=3 stride=1"),
        # Wider inside, narrower outside: neither holds the other.
        parse_op("mbconv 8x10x10>8x10x10 act=hswish expand=1 kernel=3 mid=400 se=1 skip=1 stride=1"),
    ],
)
def test_ops_that_cannot_share_weights_are_refused(stranger: Op) -> None:
    with pytest.raises(ValueError, match="cannot share the weights of"):
        Elastic([block(7, 96), stranger])


@pytest.mark.parametrize("name", ["mobilenetv3", "mobilenetv3-tiny"])
def test_every_op_of_a_slot_runs(name: str) -> None:
    space = make_space(name)
    for slot in space.slots[:: 5 if name == "mobilenetv3" else 2]:
        ops = [op for op in space.slot_ops(slot).flat if op is not None]
        with torch.device("meta"):
            made = Elastic(ops).eval()
        by_weights = {(op.kind, op.input[0], op.output[0], op.attributes): op for op in ops}
        for op in by_weights.values():
            assert made(torch.empty(1, *op.input, device="meta"), op).shape == (1, *op.output)
