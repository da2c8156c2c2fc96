from __future__ import annotations

import math

import pytest

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces import SPACES, make_space, parse_op
from hwnas.spaces.kinds import KINDS, make_divisible, squeeze_width
from hwnas.spaces.ops import make_op

CONV: dict[str, int | str] = {"kernel": 3, "stride": 2, "act": "hswish"}


@pytest.mark.parametrize("name", SPACES)
def test_a_key_says_all_of_an_op(name: str) -> None:
    ops = make_space(name).distinct_ops
    assert len({op.key for op in ops}) == len(set(ops)) == len(ops)
    for op in ops:
        assert parse_op(op.key) == op


def test_a_key_stays_the_same_for_ever() -> None:
    # Latency tables on users' disks hold these texts.
    op = make_op("mbconv", (24, 40, 40), (40, 20, 20), stride=2, se=1, kernel=5, mid=96, expand=1, act="relu", skip=0)
    assert op.key == "mbconv 24x40x40>40x20x20 act=relu expand=1 kernel=5 mid=96 se=1 skip=0 stride=2"
    op = make_op("classifier", (960, 5, 5), (1000,), hidden=1280, act="hswish")
    assert op.key == "classifier 960x5x5>1000 act=hswish hidden=1280"


def test_the_order_of_attributes_does_not_matter() -> None:
    shapes = (3, 8, 8), (16, 4, 4)
    assert make_op("conv", *shapes, act="relu", stride=2, kernel=3) == make_op(
        "conv", *shapes, kernel=3, act="relu", stride=2
    )


def test_attributes_by_name() -> None:
    op = make_op("conv", (3, 8, 8), (16, 4, 4), **CONV)
    assert (op["act"], op["stride"], op.number("kernel")) == ("hswish", 2, 3)
    with pytest.raises(KeyError):
        op["mid"]


def test_an_unknown_kind() -> None:
    with pytest.raises(
        UnknownName, match=r"unknown op kind 'mbcnv'.*'mbconv'.*Known: conv, patch-conv, mbconv, .*linear"
    ):
        make_op("mbcnv", (1, 2, 2), (1, 2, 2))


@pytest.mark.parametrize("attributes", [{"kernel": 3, "stride": 2}, CONV | {"se": 1}])
def test_attributes_that_are_not_those_of_the_kind(attributes: dict[str, int | str]) -> None:
    with pytest.raises(InvalidValue, match=r"'conv' has the attributes \['act', 'kernel', 'stride'\], not"):
        make_op("conv", (3, 8, 8), (16, 4, 4), **attributes)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv",
        "conv 3x8x8",
        "conv 3x8xq>16x4x4 act=hswish kernel=3 stride=2",
        "conv 3x8x8>16x4x4>16 act=hswish kernel=3 stride=2",
        "conv 3x8x8>16x4x4 act=hswish kernel=3",
        "conv 3x8x8>16x4x4 act=hswish kernel stride=2",
        "pool 3x8x8>16x4x4 act=hswish kernel=3 stride=2",
        "conv 3x8x8>16x4x4  act=hswish kernel=3 stride=2",
    ],
)
def test_a_text_that_is_no_key(key: str) -> None:
    with pytest.raises(InvalidValue, match="is not the key of an op"):
        parse_op(key)


@pytest.mark.parametrize(
    "key",
    [
        "conv 3x8x8>16x4x4 kernel=3 act=hswish stride=2",
        "conv 03x8x8>16x4x4 act=hswish kernel=3 stride=2",
        "conv 3x8x8>16x4x4 act=hswish kernel=03 stride=2",
    ],
)
def test_a_second_text_for_an_op_is_refused(key: str) -> None:
    with pytest.raises(InvalidValue, match=r"canonical form.*'conv 3x8x8>16x4x4 act=hswish kernel=3 stride=2'"):
        parse_op(key)


def test_every_kind_stands_in_a_space() -> None:
    # So that the counts of MACs and parameters, which are checked on the ops of spaces, are checked for all kinds.
    # Left out are that of edges which give nothing, and is never built, and that of traced networks (tests/tracing).
    assert {op.kind for name in SPACES for op in make_space(name).distinct_ops} == set(KINDS) - {"none", "segment"}


def test_widths_that_a_multiplier_leaves() -> None:
    # The widths of once-for-all at 1.2, as its README gives them.
    base = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
    assert [make_divisible(w * 1.2) for w in base] == [24, 24, 32, 48, 96, 136, 192, 1152, 1536]


@pytest.mark.parametrize("value", [0.5, 4, 8, 11.9, 12, 16 * 3.7, 100, 1001])
def test_a_width_is_near_and_not_far_below(value: float) -> None:
    width = make_divisible(value)
    assert width % 8 == 0
    assert width >= max(8, 0.9 * value)
    # Never two steps away: rounding moves it by at most 4, the floor of 90% by one step more.
    assert abs(width - max(value, 8)) <= 8


def test_the_width_of_gates() -> None:
    assert [squeeze_width(mid) for mid in (16, 72, 120, 960)] == [8, 24, 32, 240]


def test_macs_and_params_by_hand() -> None:
    conv = make_op("conv", (3, 8, 8), (16, 4, 4), **CONV)
    assert (conv.macs, conv.params) == (3 * 16 * 9 * 16, 3 * 16 * 9 + 2 * 16)
    attributes: dict[str, int | str] = {"mid": 32, "kernel": 5, "stride": 2, "act": "relu", "skip": 0}
    op = make_op("mbconv", (8, 6, 6), (16, 3, 3), expand=1, se=1, **attributes)
    squeezed = 8
    assert op.macs == 8 * 32 * 36 + 32 * 25 * 9 + 2 * 32 * squeezed + 32 * 16 * 9
    weights = 8 * 32 + 32 * 25 + 32 * 16 + 2 * 32 * squeezed
    assert op.params == weights + squeezed + 32 + 2 * (32 + 32 + 16)
    bare = make_op("mbconv", (32, 6, 6), (16, 3, 3), expand=0, se=0, **attributes)
    assert bare.macs == 32 * 25 * 9 + 32 * 16 * 9
    head = make_op("classifier", (12, 5, 5), (10,), hidden=20, act="hswish")
    assert (head.macs, head.params) == (12 * 20 + 20 * 10, 12 * 20 + 20 * 10 + 10)


@pytest.mark.parametrize("name", SPACES)
def test_the_output_of_an_op_follows_from_stride_and_kernel(name: str) -> None:
    for op in make_space(name).distinct_ops:
        if op.kind in ("patches", "patch-conv"):
            sides = [side // op.number("patch") for side in op.input[1:]]
            assert list(op.output[1:]) == sides or op.output[0] == math.prod(sides) + op.number("first"), op.key
        elif len(op.input) == 3 and len(op.output) == 3:
            halves = op.kind == "factorized-reduce"
            stride = op.number("stride") if "stride" in KINDS[op.kind].attributes else 1 + halves
            side = math.ceil(op.input[1] / stride)
            assert op.output[1:] == (side, side), op.key
