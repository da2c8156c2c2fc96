from __future__ import annotations

import itertools

import numpy as np
import pytest

from hwnas.errors import InvalidValue
from hwnas.spaces import make_space
from hwnas.spaces.nasbench201 import EDGES, OPERATIONS, nasbench201_function, nasbench201_string, parse_nasbench201

SPACE = make_space("nasbench201")
TINY = make_space("nasbench201-tiny")
ALL = np.array(list(itertools.product([0], *[range(len(OPERATIONS))] * len(EDGES))), np.uint8)
LARGEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def cell(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The first cell of a text's network, a place -> the key of its op and what it reads; and who reads the cell."""
    nodes = TINY.network(parse_nasbench201(TINY, text))
    names = [node.name.removeprefix("stage1.cell1.") for node in nodes]
    found = {
        n: (node.op.key, tuple(names[r] for r in node.reads))
        for n, node in zip(names, nodes, strict=True)
        if n != "stem"
    }
    return {n: entry for n, entry in found.items() if not n.startswith("stage") and n != "classifier"} | {
        "next": found["stage2.reduce"]
    }


# -- the space as published ----------------------------------------------------------------------------------------


def test_every_cell_has_a_string_of_its_own() -> None:
    archs = SPACE.decode(ALL)
    strings = [nasbench201_string(arch) for arch in archs]
    assert len(set(strings)) == SPACE.size == 15_625
    assert [parse_nasbench201(SPACE, text) for text in strings] == archs


def test_as_many_functions_as_published() -> None:
    archs = SPACE.decode(ALL)
    assert len({nasbench201_function(arch) for arch in archs}) == 6_466
    assert len({nasbench201_function(arch, zeros=False) for arch in archs}) == 5_390


def test_the_text_of_a_function() -> None:
    # The same two branches, over one node and over the other.
    one = parse_nasbench201(SPACE, "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|")
    same = parse_nasbench201(SPACE, "|skip_connect~0|+|nor_conv_1x1~0|none~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|")
    swapped = parse_nasbench201(
        SPACE, "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
    )
    plain = [nasbench201_function(arch, zeros=False) for arch in (one, same, swapped)]
    assert plain[0] == plain[1] == "((0)@nor_conv_1x1)@avg_pool_3x3+(0)@nor_conv_3x3"
    assert plain[2] == "((0)@nor_conv_1x1)@nor_conv_3x3+(0)@avg_pool_3x3"


def test_the_largest_network_is_as_large_as_published() -> None:
    macs, params = SPACE.macs(ALL), SPACE.params(ALL)
    assert nasbench201_string(SPACE.decode(ALL[[macs.argmax()]])[0]) == LARGEST
    assert macs.max() == 220_119_680  # published: 220.12 M
    assert params.max() == 1_531_546  # published: 1.53 M
    assert parse_nasbench201(SPACE, LARGEST) == SPACE.largest


# -- what stands in a cell -----------------------------------------------------------------------------------------


def test_a_cell_of_every_operation() -> None:
    shape = "16x32x32>16x32x32"
    conv, pool = f"conv {shape} act=none kernel={{}} stride=1", f"avgpool {shape} kernel=3 stride=1"
    text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    assert cell(text) == {
        **{f"relu_{i}": (f"relu {shape}", (read,)) for i, read in enumerate(("stem", "edge_0_1", "edge_1_2"))},
        "edge_0_1": (conv.format(3), ("relu_0",)),
        "edge_1_2": (pool, ("edge_0_1",)),
        "edge_1_3": (conv.format(1), ("relu_1",)),
        "edge_2_3": (conv.format(3), ("relu_2",)),
        "node_3": ("sum 16x32x32>16x32x32 terms=3", ("stem", "edge_1_3", "edge_2_3")),
        "next": ("basic-block 16x32x32>32x16x16 kernel=3 stride=2", ("node_3",)),
    }


def test_skip_connections_are_no_ops() -> None:
    text = "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
    assert cell(text) == {"next": ("basic-block 16x32x32>32x16x16 kernel=3 stride=2", ("stem",))}
    # One tensor three times is still a sum of three.
    text = "|skip_connect~0|+|none~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
    assert cell(text)["node_3"] == ("sum 16x32x32>16x32x32 terms=3", ("stem", "stem", "stem"))


def test_what_nothing_reads_is_left_out() -> None:
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_1x1~0|none~1|none~2|"
    assert set(cell(text)) == {"relu_0", "edge_0_3", "next"}


def test_a_cell_of_nothing_gives_zeros() -> None:
    text = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    assert not TINY.depends_on_image(parse_nasbench201(TINY, text))
    zero = ("zero 16x32x32>16x32x32 stride=1", ("stem",))
    assert set(cell(text)) == {"node_3", "next"}
    assert cell(text)["node_3"] == zero
    text = "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|none~1|none~2|"
    assert cell(text)["node_3"] == zero
    # An operation on nothing gives nothing.
    text = "|none~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|skip_connect~2|"
    assert cell(text)["node_3"] == zero
    text = "|none~0|+|nor_conv_3x3~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|"
    assert set(cell(text)) == {"relu_0", "edge_0_2", "edge_0_3", "node_3", "next"}
    assert cell(text)["node_3"] == ("sum 16x32x32>16x32x32 terms=2", ("edge_0_3", "edge_0_2"))


def test_what_edges_share_is_computed_once() -> None:
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|avg_pool_3x3~2|"
    found = cell(text)
    assert found["edge_0_1"][1] == found["edge_0_2"][1] == ("relu_0",)
    text = "|skip_connect~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|avg_pool_3x3~0|avg_pool_3x3~1|none~2|"
    assert set(cell(text)) == {"edge_0_2", "node_3", "next"}
    assert cell(text)["node_3"][1] == ("edge_0_2", "edge_0_2")
    # Of every cell the sum over slots is the sum over what runs.
    counted = TINY.slot_sum(lambda _: 1.0)(ALL[::11])
    assert counted.tolist() == [len(TINY.network(arch)) for arch in TINY.decode(ALL[::11])]


# -- bad strings ---------------------------------------------------------------------------------------------------

START = "|none~0|+|none~0|none~1|+"


@pytest.mark.parametrize(
    ("text", "position", "what", "found"),
    [
        ("", 0, "'|'", "the end"),
        (" |none~0|", 0, "'|'", "' |none~0|'"),
        ("none~0", 0, "'|'", "'none~0'"),
        ("|", 1, "one of none, skip_connect, avg_pool_3x3, nor_conv_1x1, nor_conv_3x3", "the end"),
        (
            "|sep_conv_3x3~0|",
            1,
            "one of none, skip_connect, avg_pool_3x3, nor_conv_1x1, nor_conv_3x3",
            "'sep_conv_3x3~0|'",
        ),
        ("|none|", 5, "'~0' (the node that the operation reads)", "'|'"),
        ("|none~0|+|none~0|none~0|", 21, "'~1' (the node that the operation reads)", "'~0|'"),
        ("|none~0", 7, "'|'", "the end"),
        ("|none~0|none~0|", 8, "'+|'", "'none~0|'"),
        (START + "none~0|none~1|none~2|", 24, "'+|'", "'+none~0|none~1|none~'"),
        (START + "|none~0|none~1|none~2", 46, "'|'", "the end"),
        (START + "|none~0|none~1|none~2|+", 47, "the end", "'+'"),
    ],
)
def test_a_bad_string_is_refused_with_the_position(text: str, position: int, what: str, found: str) -> None:
    with pytest.raises(InvalidValue) as error:
        parse_nasbench201(TINY, text)
    assert str(error.value) == (
        f"{text!r} does not parse: at position {position} {what} is expected, not {found}. "
        "A cell is written |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
    )


def test_a_cell_of_another_space() -> None:
    with pytest.raises(InvalidValue, match="darts-tiny has no NAS-Bench-201 cells; use nasbench201 or nasbench201-tin"):
        parse_nasbench201(make_space("darts-tiny"), LARGEST)
    with pytest.raises(InvalidValue, match="edge_0_1 is 4, which is not among 0, 1"):
        parse_nasbench201(TINY.fix(edge_0_1=[0, 1]), LARGEST)


def test_a_value_of_another_type_is_told_from_the_number() -> None:
    space = make_space("nasbench201-tiny")
    with pytest.raises(InvalidValue, match="edge_1_2 is '2', which is not among 0, 1"):
        space.arch({**space.largest, "edge_1_2": "2"})  # type: ignore[dict-item]


SKIP = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"


@pytest.mark.parametrize(
    ("fixed", "text"),
    [
        ({}, SKIP),
        ({"edge_0_3": 0}, "|none~0|+|skip_connect~0|none~1|+|none~0|none~1|skip_connect~2|"),
        ({"edge_0_3": 4}, SKIP.replace("skip_connect", "nor_conv_3x3")),
        (dict.fromkeys(["edge_0_1", "edge_0_2", "edge_0_3"], 0), SKIP.replace("skip_connect", "none")),  # no other
    ],
)
def test_the_smallest_network_depends_on_its_image(fixed: dict[str, int | list[int]], text: str) -> None:
    space = TINY.fix(**fixed)
    assert nasbench201_string(space.smallest) == text
    assert space.depends_on_image(space.smallest) == ("skip" in text or "conv" in text)


def test_which_networks_depend_on_their_image() -> None:
    archs = TINY.decode(ALL[(ALL[:, 1:] < 2).all(axis=1)])  # nothing or a skip connection on each edge
    found = [TINY.depends_on_image(arch) for arch in archs]
    assert found == [nasbench201_function(arch, zeros=False) != "#" for arch in archs]
    assert set(found) == {False, True}
