"""An op kind is one record: with its record and its module, a new kind trains, sorts its channels and is lowered."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from hwnas.lowering import form_of
from hwnas.nn.blocks import build, conv_bn, network
from hwnas.spaces import Op, Space, make_space
from hwnas.spaces.kinds import KINDS, InnerChannels, OpKind
from hwnas.spaces.ops import make_op, parse_op
from hwnas.supernet import Supernet, extract
from hwnas.supernet.sort import channel_orders, reorder
from hwnas.targets import load_recipe


class TwoConvs(nn.Module):
    """A 1x1 convolution to `mid` channels and a 3x3 one from them, and the input added."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        mid = op.number("mid")
        self.layers = nn.Sequential(
            OrderedDict(
                reduce=conv_bn(op.input[0], mid, act="relu"), spatial=conv_bn(mid, op.output[0], kernel=3, act="none")
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y


KIND = OpKind(
    module="made_up_modules:TwoConvs",
    attributes=frozenset({"mid"}),
    macs=lambda op: 10 * op.input[0] * op.number("mid") * op.input[1] * op.input[2],
    params=lambda op: 10 * op.input[0] * op.number("mid") + 2 * (op.number("mid") + op.output[0]),
    activations=lambda op: 2 * op.input[0] * op.input[1] * op.input[2],
    inner=(
        InnerChannels(
            reader="layers.spatial.conv.weight",
            writers=("layers.reduce.conv.weight", *(f"layers.reduce.bn.{n}" for n in ("weight", "bias"))),
            width=lambda op: op.number("mid"),
        ),
    ),
)


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    """The residual convolutions of mobilenetv3-tiny's blocks, each in place of an mbconv with the same widths."""
    module = ModuleType("made_up_modules")
    module.TwoConvs = TwoConvs  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_modules", module)
    monkeypatch.setitem(KINDS, "two-convs", KIND)
    usual = make_space("mobilenetv3-tiny").fix(resolution=24)

    def changed(op: Op | None) -> Op | None:
        if op is None or op.kind != "mbconv" or not op["skip"]:
            return op
        return make_op("two-convs", op.input, op.output, mid=op.number("mid"))

    slots = tuple(replace(slot, op=lambda *values, of=slot.op: changed(of(*values))) for slot in usual.slots)
    return replace(usual, slots=slots)


def test_its_ops_are_counted_and_have_keys(space: Space) -> None:
    [op, *_] = [op for op in space.distinct_ops if op.kind == "two-convs"]
    assert parse_op(op.key) == op
    assert op.params == sum(p.numel() for p in build(op).parameters())
    assert np.isfinite(space.macs(space.sample(8, seed=0))).all()


def test_it_trains_in_a_supernet_and_sorts_its_channels(space: Space) -> None:
    supernet = Supernet(space, seed=0)
    x = torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    orders = channel_orders(supernet, space.fix(**space.largest))
    sorted_names = [name for name in orders if name.endswith("layers.spatial.conv.weight")]
    assert sorted_names
    supernet.eval()
    with torch.no_grad():
        before = supernet(x, space.largest)
        reorder(supernet.state_dict(), orders)
        assert torch.allclose(supernet(x, space.largest), before, atol=1e-5)
        for name in sorted_names:
            norms = supernet.state_dict()[name].abs().sum(dim=(0, 2, 3))
            assert bool((norms[:-1] >= norms[1:]).all())
        small = extract(supernet, space.smallest).eval()
        assert torch.allclose(small(x), supernet(x, space.smallest), atol=1e-5)


@pytest.mark.parametrize("recipe", ["onnxruntime-cpu-fp32", "torch-cpu-fp32"])
def test_it_is_lowered(space: Space, recipe: str) -> None:
    from hwnas.runtimes import open_session

    chosen = load_recipe(recipe)
    module = network(space, space.smallest).eval()
    program = form_of(chosen).lower(module, (1, 24, 24))
    x = np.random.default_rng(0).normal(size=(1, 1, 24, 24)).astype(np.float32)
    with open_session(program, chosen) as session, torch.no_grad():
        np.testing.assert_allclose(session.run(x), module(torch.from_numpy(x)).numpy(), atol=1e-4)
