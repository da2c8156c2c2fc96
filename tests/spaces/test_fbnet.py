"""FBNet's space: its candidates, their numbers, and the block with groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.errors import InvalidValue
from hwnas.nn.blocks import build
from hwnas.spaces import make_space, notation_of, parse_op
from hwnas.spaces.catalog import parse_notation
from hwnas.spaces.fbnet import CANDIDATES

SPACE = make_space("fbnet")
NUMBERS = "7 8 1 8 4 8 8 8 7 4 1 4 7 3 2 7 3 2 4 2 4 5"  # of the shared latencies


def test_every_layer_has_nine_candidates_of_ascending_cost() -> None:
    assert SPACE.size == 9**22
    for i in range(1, 23):
        one = np.zeros((9, len(SPACE.variables)), np.uint8)
        one[:, SPACE.column[f"layer_{i}"]] = np.arange(9)
        macs = np.diff(SPACE.macs(one))
        assert (macs[1:] >= 0).all()
        assert macs[0] >= 0 or i in (14, 22)  # their skip is a convolution: their widths change, their sides do not


def test_numbers_and_archs_are_the_same_networks() -> None:
    arch = parse_notation(SPACE, NUMBERS)
    assert notation_of(arch) == NUMBERS
    assert [arch[f"layer_{i}"] for i in (1, 2, 3)] == ["k5-e6", "skip", "k3-e1-g2"]
    assert len(CANDIDATES) == 9


@pytest.mark.parametrize(("text", "message"), [("1 2", "2 numbers; .* 22 numbers"), ("9 " * 22, "layer_1 is '9'")])
def test_texts_that_are_no_networks(text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        parse_notation(SPACE, text)
    with pytest.raises(InvalidValue, match="have no notation"):
        parse_notation(make_space("mobilenetv3-tiny"), text)


def test_a_skip_that_changes_the_shape_is_a_convolution() -> None:
    ops = {slot.name: op for slot, op in SPACE.ops(SPACE.smallest)}
    assert {name for name, op in ops.items() if op.kind == "conv"} == {
        *("stem", "head"),
        *(f"stage{s}.layer{i}" for s, i in ((2, 2), (3, 6), (4, 10), (5, 14), (6, 18), (7, 22))),
    }


def test_groups_are_shuffled_and_independent_before() -> None:
    op = parse_op("grouped-mbconv 4x2x2>4x2x2 act=relu groups=2 kernel=3 mid=8 skip=0 stride=1")
    torch.manual_seed(0)
    module = build(op).eval().double()
    layers = dict(module.named_modules())
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    other = x.clone()
    other[:, 2:] += 1
    wide, moved = layers["layers.expand"](x), layers["layers.expand"](other)
    assert torch.equal(wide[:, :4], moved[:, :4])
    shuffled = layers["layers.shuffle"](wide)
    assert torch.equal(shuffled[:, [0, 2, 4, 6]], wide[:, :4])
    assert torch.equal(shuffled[:, [1, 3, 5, 7]], wide[:, 4:])
