"""Options of spaces: names, values and errors; `test_option_files.py` has their files."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.errors import HwnasError, InvalidValue, UnknownName
from hwnas.spaces import (
    SPACES,
    Space,
    SpaceOptions,
    base_of,
    make_space,
    notation_of,
    space_name,
    space_options,
)
from hwnas.spaces.options import _LONGEST, int_values, split_name, values_text

# Definitions that stored files depend on: a changed digest means that names of spaces no longer reproduce them.
DIGESTS = {
    "mobilenetv3": "bb80d98b33afdb42",
    "mobilenetv3-w1.2": "3c03c0ca315875d6",
    "mobilenetv3-tiny": "2119f3d46c130ef5",
    "proxyless-w1.3": "6c19efee6b779086",
    "fbnet": "d8af2261e1ec6b69",
    "resnet50": "b814e15f9f38d28f",
    "nasbench201": "e982b12a3c590937",
    "nasbench201-tiny": "f9c08692e56f663f",
    "darts": "f38041deb332ecf7",
    "darts-tiny": "520bab885f81c27f",
    "mobilenetv3-small": "f023d6b27a7496a3",
    "mobilenetv3-small+resolution=64,80,96+width=0.5": "17460d5cd5001c14",
    "mobilenetv3-tiny+kernels=3,5+expansions=2+stages=16x1.2-s2-relu,32x1-s1-hswish-se": "7a45f381703712e8",
    "resnet50+resolution=64:128:16+width=0.5": "d7bfec5650b0f104",
    "nasbench201+resolution=64+width=0.5": "4b5b3b4dfadbdd40",
    "darts+width=0.5": "24f539499db960ca",
    "mobilenetv3-small+resolution=32,48+aspect=4:1": "53008e1b19531a69",
    "darts-tiny+aspect=1:2": "97bf6679f4a4cf26",
    "autoformer-tiny": "4cb643fe4302fb83",
    "autoformer-small": "c400df16c827c491",
    "vit-tiny": "16e5bc82285de761",
    "hybrid-tiny": "c4eaf6fdb0046a74",
    "sequence": "135357c030cd7f57",
    "encoder": "ff889d476158e309",
    "vit-tiny+resolution=32": "9be0c2f39337140d",
    "sequence+length=64,128": "88e6bba93c26999a",
}
SMALL = "mobilenetv3-small"


def content(space: Space) -> list[object]:
    """All that distinguishes a space, but its name."""
    return [
        (space.classes, space.in_channels, space.bn_eps, space.shares_weights),
        [(v.name, v.values, v.matters and (v.matters[0], v.matters[1][0])) for v in space.variables],
        [(s.name, s.group, s.variables, s.needed_by) for s in space.slots],
        [op.key for op in space.distinct_ops],
        [(p.name, p.slot, p.reads) for p in space.places],
    ]


def digest(space: Space) -> str:
    first, *rest = content(space)
    return hashlib.sha256(repr([space.name, *first, *rest]).encode()).hexdigest()[:16]


def test_every_named_space_is_pinned() -> None:
    assert set(SPACES) <= set(DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
def test_a_name_always_makes_the_same_space(name: str) -> None:
    space = make_space(name)
    assert space.name == name
    assert digest(space) == DIGESTS[name]


# -- names -------------------------------------------------------------------------------------------------------


def test_the_name_says_what_the_options_are() -> None:
    space = make_space(SMALL, options={"width": 0.5, "resolution": [96, 64, 80]})
    assert space.name == "mobilenetv3-small+resolution=64,80,96+width=0.5"
    assert space.choices["resolution"] == [64, 80, 96]
    assert space_name(SMALL, {"resolution": "64:128:16"}) == "mobilenetv3-small+resolution=64:128:16"
    assert space_name(SMALL, {"resolution": 64, "width": 2}) == "mobilenetv3-small+resolution=64+width=2"


@pytest.mark.parametrize("name", SPACES)
def test_its_own_options_are_left_out_of_the_name(name: str) -> None:
    whole, own = make_space(name), space_options(name)
    for keys in itertools.combinations(own.given, 2):
        space = make_space(name, options={key: own.given[key] for key in keys})
        assert (space.name, digest(space)) == (name, digest(whole))


def test_later_options_take_precedence() -> None:
    name = "mobilenetv3-small+width=0.5+kernels=3"
    assert space_name(name, {"width": 0.25}) == "mobilenetv3-small+width=0.25+kernels=3"
    assert space_name(name, {"width": 1}) == "mobilenetv3-small+kernels=3"
    assert base_of(name) == SMALL
    assert space_options(name).width == 0.5


def widths() -> st.SearchStrategy[float]:
    return st.floats(0.1, 4).map(lambda x: round(x, 3)) | st.sampled_from([0.25, 0.5, 0.75, 1, 1.5, 1 / 3])


def ints(low: int, high: int, step: int = 1, size: int = 6) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(range(low, high + 1, step)), min_size=1, max_size=size, unique=True)


def stages() -> st.SearchStrategy[list[dict[str, object]]]:
    stage = st.fixed_dictionaries(
        {
            "width": st.sampled_from(range(8, 129, 8)),
            "depths": ints(1, 3, size=3),
            "stride": st.sampled_from([1, 2]),
            "act": st.sampled_from(["relu", "relu6", "hswish"]),
            "se": st.booleans(),
        }
    )
    return st.lists(stage, min_size=1, max_size=3)


def any_options() -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "resolution": ints(32, 128, 4),
            "width": widths(),
            "kernels": ints(3, 9, 2, 3),
            "expansions": ints(1, 6, size=3),
            "stages": stages(),
            "aspect": st.sampled_from(["1:1", "2:1", "4:2", "3:1", "3:2"]),
        },
    )


@given(options=any_options(), order=st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_name_reproduces_its_space_and_equal_spaces_have_one_name(options, order) -> None:
    space = make_space("mobilenetv3-tiny", options=options)
    again = make_space(space.name, recorded=True)
    assert (again.name, content(again)) == (space.name, content(space))
    # Neither the order of options nor that of values matters.
    shuffled = {key: options[key] for key in order.sample(list(options), len(options))}
    shuffled = {
        key: order.sample(v, len(v)) if key != "stages" and isinstance(v, list) else v for key, v in shuffled.items()
    }
    assert space_name("mobilenetv3-tiny", shuffled) == space.name
    base, *parts = space.name.split("+")
    assert space_name("+".join([base, *order.sample(parts, len(parts))])) == space.name
    assert set(space.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-+=,:"), "no shell quotes it"


@given(first=any_options(), second=any_options())
@settings(max_examples=40, deadline=None)
def test_different_spaces_have_different_names(first, second) -> None:
    a, b = (make_space("mobilenetv3-tiny", options=options) for options in (first, second))
    if a.name == b.name:
        assert content(a) == content(b)


@given(values=st.lists(st.integers(1, 4000), min_size=1, max_size=20, unique=True).map(sorted))
def test_values_are_written_as_they_are_read(values: list[int]) -> None:
    assert int_values(values_text(values)) == tuple(values)


def test_at_most_three_values_or_uneven_ones_are_a_list() -> None:
    assert values_text([64, 80, 96]) == "64,80,96"
    assert values_text([64, 80, 96, 112]) == "64:112:16"
    assert values_text([64, 80, 96, 128]) == "64,80,96,128"


# -- what options do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("mobilenetv3+width=1.2", "mobilenetv3-w1.2"),
        ("mobilenetv3-w1.2+width=1", "mobilenetv3"),
        ("mobilenetv3+resolution=128:224:4", "mobilenetv3"),
        ("resnet50+width=1", "resnet50"),
    ],
)
def test_a_space_with_options_equals_the_named_one(name: str, same: str) -> None:
    assert content(make_space(name)) == content(make_space(same))


@given(data=st.data(), name=st.sampled_from(["mobilenetv3-tiny", "mobilenetv3-small", "mobilenetv3", "resnet50"]))
@settings(max_examples=25, deadline=None)
def test_fewer_values_are_the_named_space_with_fewer_choices(data, name: str) -> None:
    whole, own = make_space(name), space_options(name)
    chosen = {
        key: sorted(data.draw(st.sets(st.sampled_from(own.given[key]), min_size=1)))
        for key in ("resolution", "kernels", "expansions")
        if key in own.given
    }
    prefixes = {"resolution": "resolution", "kernels": "kernel_", "expansions": "expansion_"}
    fixed = {v: values for key, values in chosen.items() for v in whole.column if v.startswith(prefixes[key])}
    part = whole.fix(**fixed)
    space = make_space(name, options=chosen)
    assert space.choices == part.choices
    assert space.distinct_ops == part.distinct_ops
    codes = space.sample(10, seed=0)
    assert [dict(a) for a in space.decode(codes)] == [dict(a) for a in part.decode(codes)]
    assert np.array_equal(space.macs(codes), part.macs(codes))


def test_stages_are_those_given() -> None:
    space = make_space(
        "mobilenetv3-tiny",
        options={
            "stages": [
                {"width": 24, "depths": "1:3:1", "stride": 2, "act": "relu"},
                {"width": 40, "depths": 2, "stride": 1, "act": "relu6", "se": True},
            ],
            "kernels": [3, 9],
        },
    )
    assert space.name == "mobilenetv3-tiny+kernels=3,9+stages=24x1.2.3-s2-relu,40x2-s1-relu6-se"
    assert (space.choices["depth_1"], space.choices["depth_2"]) == ([1, 2, 3], [2])
    assert space.choices["kernel_2_2"] == [3, 9]
    ops = {slot.name: op for slot, op in space.ops(space.largest)}
    assert ops["stage1.block1"].output == (24, 8, 8)
    first = ops["stage2.block1"]
    assert (first.output, first["act"], first["se"], first.number("stride")) == ((40, 8, 8), "relu6", 1, 1)
    assert ops["head"].input == (40, 8, 8)


def test_width_scales_every_layer() -> None:
    def channels(name: str) -> list[int]:
        space = make_space(name)
        return [op.output[0] for _, op in space.ops(space.largest)][:-1]

    assert channels("nasbench201+width=0.5") == [c // 2 for c in channels("nasbench201")]
    assert channels("darts+width=0.5") == [c // 2 for c in channels("darts")]
    halves = zip(channels("resnet50+width=0.5"), channels("resnet50"), strict=True)
    assert all(a == c // 2 for a, c in halves)
    assert channels(f"{SMALL}+width=0.5")[0] == 8


def test_cells_keep_their_notation() -> None:
    space = make_space("nasbench201-tiny+width=0.5")
    assert notation_of(space.largest) == notation_of(make_space("nasbench201-tiny").largest)


def test_the_small_space_covers_the_table_it_is_taken_from() -> None:
    """Howard et al. 2019, table 2: width, depth, kernel, activation, squeeze-excitation and ratio of each stage."""
    space = make_space(SMALL)
    assert (space.choices["resolution"][0], space.choices["resolution"][-1]) == (48, 128)
    table = {
        1: (24, 2, "relu", 0),
        2: (40, 3, "hswish", 1),
        3: (48, 2, "hswish", 1),
        4: (96, 3, "hswish", 1),
    }
    ops = {slot.name: op for slot, op in space.ops(space.largest)}
    for s, (width, depth, act, se) in table.items():
        op = ops[f"stage{s}.block1"]
        assert (op.output[0], op["act"], op["se"]) == (width, act, se)
        assert depth in space.choices[f"depth_{s}"]
        assert {3, 5} == set(space.choices[f"kernel_{s}_1"])
    assert ops["stem"].output[0] == ops["stage0.block1"].output[0] == 16
    assert (ops["head"].output, ops["classifier"].number("hidden")) == ((576, 8, 8), 1024)
    smallest = {slot.name: op for slot, op in space.ops(space.smallest)}
    assert smallest["head"].output == (576, 3, 3)


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (SMALL, {"resolutions": 64}, "unknown option of a space 'resolutions'. Did you mean 'resolution'"),
        (f"{SMALL}+colour=3", None, "unknown option of a space 'colour'. Known: resolution, width"),
        ("resnet50", {"kernels": 3}, "unknown option of the space resnet50: 'kernels'. Known: resolution, width, exp"),
        (
            SMALL,
            {"resolution": 8},
            "resolution 8 is too small: .* by 16; use 16 or more, or fewer stages with stride 2",
        ),
        ("darts", {"resolution": 30}, "resolution 30 is not a multiple of 4, .*; use 28 or 32"),
        ("darts", {"width": 0.3}, "10.8 of 36 channels, .* use 0.277778 .10 channels. or 0.333333 .12 channels."),
        (SMALL, {"width": 9}, "width of a space is 9; it should be less than or equal to 4"),
        (f"{SMALL}+width=half", None, "width of a space is 'half'; it should be a number, such as 0.5"),
        (f"{SMALL}+width=1+width=2", None, "gives width twice"),
        (SMALL, {"kernels": "4"}, "kernels of a space is '4'; kernels must be odd and between 3 and 15"),
        (SMALL, {"expansions": 0}, "expansions of a space is 0; expansions must be between 1 and 400"),
        (SMALL, {"resolution": "64;80"}, "write values as 64,80,96, or as first:last:step, 64:128:16"),
        (SMALL, {"resolution": "128:64:16"}, "must ascend"),
        (SMALL, {"resolution": "64:70:16"}, "do not reach 70; use 64:80:16"),
        (SMALL, {"resolution": "8:4096:1"}, "that is 4089 values; use a larger step, for at most 64"),
        (SMALL, {"resolution": []}, "there must be 1 to 64 values, not 0"),
        (SMALL, {"resolution": 64.5}, "give an integer, a list of integers"),
        (SMALL, {"resolution": 5000}, "resolutions must be between 8 and 4096 pixels"),
        (f"{SMALL}+stages=24", None, "a stage of a space is '24'; it should have the form 24x1.2.3-s2-relu"),
        (SMALL, {"stages": [{"width": 20, "depths": 1, "stride": 1, "act": "relu"}]}, "use 16 or 24"),
        (SMALL, {"stages": [{"width": 24, "depths": 1, "act": "relu"}]}, r"stages\[0\].stride of a space is missing"),
        (SMALL, {"stages": [{"width": 24, "deep": 1}]}, "unknown key of a stage 'deep'|missing"),
        (SMALL, {"stages": []}, "at least 1 item"),
        (SMALL + "+resolution=" + ",".join(["64"] * _LONGEST), None, "unknown space"),
    ],
)
def test_mistakes_in_options(name: str, options: dict[str, object] | None, message: str) -> None:
    with pytest.raises((InvalidValue, UnknownName), match=message):
        make_space(name, options=options)


@given(
    text=st.text(st.sampled_from("0123456789.:,-+=xsrelu "), max_size=30),
    key=st.sampled_from(list(SpaceOptions.model_fields)),
)
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_space_or_an_error_for_users(text: str, key: str) -> None:
    try:
        base, options = split_name(f"mobilenetv3-tiny+{key}={text}")
        name = make_space(base, options=options).name
    except HwnasError:
        return
    assert make_space(name).name == name
