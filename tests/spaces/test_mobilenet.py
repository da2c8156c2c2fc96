from __future__ import annotations

import pytest

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces import SPACES, Op, Space, make_space
from hwnas.spaces.mobilenet import MOBILENETS


def blocks(space: Space) -> dict[str, Op]:
    return {slot.name: op for slot, op in space.ops(space.largest)}


def test_once_for_all_as_published() -> None:
    space = make_space("mobilenetv3")
    assert space.choices["resolution"] == list(range(128, 225, 4))
    for s in range(1, 6):
        assert space.choices[f"depth_{s}"] == [2, 3, 4]
        for b in range(1, 5):
            assert space.choices[f"kernel_{s}_{b}"] == [3, 5, 7]
            assert space.choices[f"expansion_{s}_{b}"] == [3, 4, 6]
    ops = blocks(space)
    firsts = [ops[f"stage{s}.block1"] for s in range(1, 6)]
    assert [op.number("stride") for op in firsts] == [2, 2, 2, 1, 2]
    assert [op["act"] for op in firsts] == ["relu", "relu", "hswish", "hswish", "hswish"]
    assert [op["se"] for op in firsts] == [0, 1, 0, 1, 1]
    assert [op.output for op in firsts] == [(24, 56, 56), (40, 28, 28), (80, 14, 14), (112, 14, 14), (160, 7, 7)]
    assert all(op["skip"] == 0 for op in firsts)
    assert all(ops[f"stage{s}.block{b}"]["skip"] == 1 for s in range(1, 6) for b in (2, 3, 4))
    assert ops["head"].output == (960, 7, 7)
    assert ops["classifier"].number("hidden") == 1280


def test_once_for_alls_largest_network() -> None:
    space = make_space("mobilenetv3")
    assert space.largest["resolution"] == 224
    # The count that once-for-all's own code gives for its largest subnet.
    assert space.params(space.encode([space.largest])) == 7_664_760


def test_a_block_skips_where_stride_and_widths_allow_it() -> None:
    # At this width stages 0 and 1 have the same, but the stride forbids the addition.
    space = make_space("mobilenetv3-tiny")
    first = blocks(space)["stage1.block1"]
    assert (first.input[0], first.output[0], first["skip"]) == (16, 16, 0)


def test_proxyless_as_published() -> None:
    space = make_space("proxyless-w1.3")
    ops = blocks(space)
    assert {op["act"] for op in ops.values() if op.kind != "linear"} == {"relu6"}
    assert not any(op["se"] for op in ops.values() if op.kind == "mbconv")
    assert [ops[f"stage{s}.block1"].output for s in range(1, 7)] == [
        (32, 56, 56),
        (56, 28, 28),
        (104, 14, 14),
        (128, 14, 14),
        (248, 7, 7),
        (416, 7, 7),
    ]
    assert (ops["stem"].output[0], ops["stage0.block1"].output[0], ops["head"].output[0]) == (40, 24, 1664)
    assert space.choices["depth_6"] == [1]
    assert space.bn_eps == 1e-3


@pytest.mark.parametrize("name", [family.name for family in MOBILENETS])
def test_a_block_needs_the_depth_at_which_it_stands(name: str) -> None:
    space = make_space(name)
    for variable in space.variables:
        kind, *place = variable.name.split("_")
        if kind in ("kernel", "expansion"):
            s, b = map(int, place)
            depths = space.variable(f"depth_{s}").values
            enough = tuple(depth for depth in depths if depth >= b)
            assert variable.matters == (None if enough == depths else (f"depth_{s}", enough))
    for arch in space.decode(space.sample(20, seed=0)):
        stages = {s: arch[f"depth_{s}"] for s in range(1, 9) if f"depth_{s}" in arch}
        standing = [slot.name for slot, _ in space.ops(arch)]
        assert standing == [
            "stem",
            "stage0.block1",
            *(f"stage{s}.block{b}" for s, depth in stages.items() for b in range(1, depth + 1)),
            "head",
            "classifier",
        ]


def test_usual_and_chosen_images_and_classes() -> None:
    assert (make_space("mobilenetv3").in_channels, make_space("mobilenetv3").classes) == (3, 1000)
    assert (make_space("mobilenetv3-tiny").in_channels, make_space("mobilenetv3-tiny").classes) == (1, 10)
    space = make_space("mobilenetv3-tiny", in_channels=3, classes=7)
    ops = blocks(space)
    assert ops["stem"].input == (3, 32, 32)
    assert ops["classifier"].output == (7,)


def test_an_unknown_space() -> None:
    with pytest.raises(UnknownName, match=r"unknown space 'mobilenetv3-tny'\. Did you mean 'mobilenetv3-tiny'\?"):
        make_space("mobilenetv3-tny")
    with pytest.raises(UnknownName, match="Known: " + ", ".join(SPACES)):
        make_space("q")


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels(channels: int) -> None:
    with pytest.raises(InvalidValue, match=f"1 or 3 channels, not {channels}"):
        make_space("mobilenetv3-tiny", in_channels=channels)


@pytest.mark.parametrize("classes", [-1, 0, 1, 1_000_001, 10**23])
def test_too_few_or_too_many_classes(classes: int) -> None:
    with pytest.raises(InvalidValue, match=f"between 2 and 1,000,000, not {classes:,}"):
        make_space("mobilenetv3-tiny", classes=classes)
