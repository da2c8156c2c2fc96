from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hwnas.lowering.fold import blanks
from hwnas.nn import build, channels_last, network, plain
from hwnas.nn.blocks import ACTIVATIONS, initialise
from hwnas.plugins import load_object
from hwnas.spaces import SPACES, Op, make_space, parse_op
from hwnas.spaces.kinds import KINDS

GATED = parse_op("mbconv 16x9x9>16x9x9 act=hswish expand=1 kernel=5 mid=48 se=1 skip=1 stride=1")


def counted(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[int, int, tuple[int, ...]]:
    """MACs and parameters of a module, and its output's shape, found by running it on the meta device."""
    with FlopCounterMode(display=False) as counter:
        y = module(*inputs)
    return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters()), tuple(y.shape[1:])


def test_every_kind_has_a_module() -> None:
    assert {name for name, kind in KINDS.items() if kind.module is None} == {"none"}  # which is never built
    for kind in KINDS.values():
        assert kind.module is None or callable(load_object(kind.module))


@pytest.mark.parametrize("name", SPACES)
def test_macs_params_and_shapes_are_those_of_the_modules(name: str) -> None:
    # A part of the large spaces: sizes and attributes come round in other steps than 37.
    ops = make_space(name).distinct_ops
    for op in ops[:: 1 if len(ops) < 300 else 37]:
        with torch.device("meta"):
            module = build(op).eval()
        inputs = [x.to("meta") for x in blanks(op, 1)]
        assert counted(module, inputs) == (op.macs, op.params, op.output), op.key


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name == "darts" else []) for name in SPACES]
)
def test_macs_and_params_of_whole_networks(name: str) -> None:
    space = make_space(name)
    archs = [space.largest, *space.decode(space.sample(2, seed=0))]
    codes = space.encode(archs)
    for arch, macs, params in zip(archs, space.macs(codes), space.params(codes), strict=True):
        with torch.device("meta"):
            whole = network(space, arch).eval()
        x = torch.empty(1, *space.input_shape(arch), device="meta", dtype=getattr(torch, space.dtype))
        assert counted(whole, [x]) == (macs, params, (space.classes,))


def test_the_gates_are_those_of_mobilenetv3() -> None:
    torch.manual_seed(0)
    module = build(GATED).eval().double()
    part = dict(module.named_modules())
    x = torch.randn(2, *GATED.input, dtype=torch.float64)
    y = part["layers.depthwise"](part["layers.expand"](x))
    squeezed = part["layers.se.reduce"](y.mean(dim=(2, 3), keepdim=True)).clamp(min=0)
    gate = (part["layers.se.expand"](squeezed) + 3).clamp(0, 6) / 6
    torch.testing.assert_close(module(x), x + part["layers.project"](y * gate))


def test_activations() -> None:
    x = torch.linspace(-5, 5, 41, dtype=torch.float64)
    assert torch.equal(ACTIVATIONS["relu"]()(x), x.clamp(min=0))
    torch.testing.assert_close(ACTIVATIONS["hswish"]()(x), x * (x + 3).clamp(0, 6) / 6)


@pytest.mark.parametrize("skip", [0, 1])
def test_the_input_is_added_only_where_the_op_says_so(skip: int) -> None:
    op = parse_op(GATED.key.replace("skip=1", f"skip={skip}"))
    module = build(op).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
        x = torch.randn(1, *op.input)
        assert torch.equal(module(x), x if skip else torch.zeros_like(x))


# -- initial weights, layout, plain copies --------------------------------------------------------------------------


def test_initial_weights_follow_the_seed_alone() -> None:
    def initialised(seed: int) -> dict[str, Tensor]:
        module = build(GATED)
        initialise(module, seed=seed)
        return module.state_dict()

    torch.manual_seed(1)
    one = initialised(5)
    torch.manual_seed(2)
    same, other = initialised(5), initialised(6)
    assert all(torch.equal(one[name], same[name]) for name in one)
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ == {name for name in one if one[name].dim() == 4}


def test_initial_weights_have_he_variance_by_fan_out() -> None:
    module = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Conv2d(256, 256, 5, groups=256), nn.Linear(256, 512))
    initialise(module, seed=0)
    dense, depthwise, linear = module
    assert isinstance(linear, nn.Linear)
    for layer, fan_out in ((dense, 128 * 9), (depthwise, 25)):
        assert isinstance(layer, nn.Conv2d)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    assert linear.weight.abs().max().item() == pytest.approx(1 / 16, rel=0.01)
    assert all(layer.bias is not None and not layer.bias.any() for layer in (dense, depthwise, linear))


def tiny_network() -> tuple[nn.Module, Tensor]:
    # Three channels: the stem's weights then have a layout to tell apart, which depthwise and 1x1 ones have not.
    space = make_space("mobilenetv3-tiny", in_channels=3)
    [arch] = space.decode(space.sample(1, seed=0))
    torch.manual_seed(0)
    return network(space, arch).eval(), torch.randn(2, 3, arch["resolution"], arch["resolution"])


def test_channels_last_changes_the_layout_and_not_the_outputs() -> None:
    module, x = tiny_network()
    before = module(x)
    moved = channels_last(copy.deepcopy(module))
    stem = moved.get_parameter("stem.conv.weight")
    assert stem.is_contiguous(memory_format=torch.channels_last)
    assert not stem.is_contiguous()
    torch.testing.assert_close(moved(x), before)


@pytest.mark.parametrize("training", [True, False])
def test_plain_has_no_class_of_ours_and_shares_the_weights(training: bool) -> None:
    module, x = tiny_network()
    twin = plain(module.train(training))
    assert twin.training == training
    assert {type(m).__module__.split(".")[0] for m in twin.modules()} == {"torch"}
    assert torch.equal(twin.eval()(x), module.eval()(x))
    assert {p.data_ptr() for p in twin.parameters()} == {p.data_ptr() for p in module.parameters()}


def test_a_network_is_its_ops_in_order() -> None:
    space = make_space("mobilenetv3-tiny")
    arch = space.smallest
    whole = network(space, arch).eval()
    found: list[tuple[str, Op]] = [(slot.name.replace(".", "_"), op) for slot, op in space.ops(arch)]
    assert [name for name, _ in whole.named_children()] == [name for name, _ in found]
    x = y = torch.randn(1, 1, 24, 24)
    for name, op in found:
        assert y.shape[1:] == op.input
        y = whole.get_submodule(name)(y)
        assert y.shape[1:] == op.output
    assert torch.equal(whole(x), y)


@pytest.mark.parametrize("name", ["mobilenetv3-tiny", "mobilenetv3", "proxyless-w1.3", "resnet50"])
def test_activations_are_what_is_alive_at_once(name: str) -> None:
    """Each layer's input and output, and the input of a residual beside them."""
    space = make_space(name)
    ops = {op.kind + str(op.attributes and dict(op.attributes).get("skip")): op for op in space.distinct_ops}
    for op in ops.values():
        block, alive = build(op).eval(), []

        def seen(_module: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, alive: list = alive) -> None:
            alive.append(inputs[0].numel() + output.numel())

        convolutions = [
            m for m in block.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear | torch.nn.MaxPool2d)
        ]
        for module in convolutions:
            module.register_forward_hook(seen)
        with torch.inference_mode():
            block(torch.zeros(1, *op.input))
        kept = math.prod(op.input)
        assert max(alive) <= op.activations <= max(alive) + kept + math.prod(op.output), op.key
        if op.kind == "conv" or (op.kind == "mbconv" and not op.number("skip")):
            assert op.activations == max(alive), op.key
