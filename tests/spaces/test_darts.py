from __future__ import annotations

import pytest

from hwnas.errors import InvalidValue
from hwnas.spaces import make_space
from hwnas.spaces.darts import OPERATIONS, genotype, pairs, parse_genotype

SPACE = make_space("darts")
TINY = make_space("darts-tiny")
# The authors' second-order cells (their genotypes.py).
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
FIRST = DARTS_V2.index("'sep_conv_3x3', 1")  # what the first operation of node 2 is followed by


def test_genotypes_come_back() -> None:
    archs = TINY.decode(TINY.sample(300, seed=1))
    assert [parse_genotype(TINY, genotype(arch)) for arch in archs] == archs
    assert len({genotype(arch) for arch in archs}) == 300


def test_the_number_of_cells() -> None:
    # A node reads two of those before it, each with one of 8 operations; the first one's are no `none`.
    cells = 7**2 * (3 * 8**2) * (6 * 8**2) * (10 * 8**2)
    assert SPACE.size == TINY.size == cells**2
    assert pairs(3) == ((0, 1), (0, 2), (1, 2))


def test_the_published_network_is_as_large_as_published() -> None:
    arch = parse_genotype(SPACE, DARTS_V2)
    [params] = SPACE.params(SPACE.encode([arch]))
    assert params == 3_349_342  # published: 3.3 M
    # 20 cells; those at one and at two thirds reduce.
    outputs = [node.op.output for node in SPACE.network(arch) if node.name.endswith(".output")]
    assert outputs == [(144, 32, 32)] * 6 + [(288, 16, 16)] * 7 + [(576, 8, 8)] * 7


def test_the_published_cells() -> None:
    nodes = TINY.network(parse_genotype(TINY, DARTS_V2))
    names = [node.name for node in nodes]
    found = {node.name: (node.op.key, tuple(names[read] for read in node.reads)) for node in nodes}
    normal = {name.removeprefix("cell1."): entry for name, entry in found.items() if name.startswith("cell1.")}
    sep, dil = (f"{kind}-conv 8x32x32>8x32x32 kernel=3 stride=1" for kind in ("sep", "dil"))
    twice, inputs = "sum 8x32x32>8x32x32 terms=2", ("cell1.input_0", "cell1.input_1")
    assert normal == {
        "input_0": ("relu-conv 24x32x32>8x32x32 kernel=1 stride=1", ("stem",)),
        "input_1": ("relu-conv 24x32x32>8x32x32 kernel=1 stride=1", ("stem",)),
        **{f"edge_{i}_{j}": (sep, (inputs[i],)) for i, j in ((0, 2), (1, 2), (0, 3), (1, 3), (1, 4))},
        "edge_2_5": (dil, ("cell1.node_2",)),
        "node_2": (twice, ("cell1.edge_0_2", "cell1.edge_1_2")),
        "node_3": (twice, ("cell1.edge_0_3", "cell1.edge_1_3")),
        "node_4": (twice, ("cell1.input_0", "cell1.edge_1_4")),
        "node_5": (twice, ("cell1.input_0", "cell1.edge_2_5")),
        "output": ("concat 8x32x32>32x32x32 terms=4", tuple(f"cell1.node_{j}" for j in (2, 3, 4, 5))),
    }
    # The second and the third cell reduce; the third reads a larger image from the first than from the second.
    assert found["cell2.edge_0_2"] == ("maxpool 16x32x32>16x16x16 kernel=3 stride=2", ("cell2.input_0",))
    # One pooling of the second input serves node 2 and node 3.
    assert found["cell2.node_3"][1] == ("cell2.edge_1_2", "cell2.node_2")
    assert found["cell3.input_0"][0] == "factorized-reduce 32x32x32>32x16x16"
    assert found["cell3.input_1"][0] == "relu-conv 64x16x16>32x16x16 kernel=1 stride=1"
    assert (found["cell4.input_0"][1], found["cell4.input_1"][1]) == (("cell2.output",), ("cell3.output",))
    assert found["classifier"] == ("linear 128x8x8>10", ("cell4.output",))


@pytest.mark.parametrize("concat", ["[2,3, 4,5]", "(2, 3, 4, 5)", "range( 2,6 )"])
def test_other_ways_to_write_a_genotype(concat: str) -> None:
    text = "\n " + DARTS_V2.replace("range(2, 6)", concat).replace("), (", "),\n    (") + "\n"
    assert parse_genotype(TINY, text) == parse_genotype(TINY, DARTS_V2)
    swapped = DARTS_V2.replace("('sep_conv_3x3', 1), ('skip_connect', 0)", "('skip_connect', 0), ('sep_conv_3x3', 1)")
    assert parse_genotype(TINY, swapped) == parse_genotype(TINY, DARTS_V2)


# -- bad genotypes -------------------------------------------------------------------------------------------------


def changed(old: str, new: str) -> str:
    assert old in DARTS_V2
    return DARTS_V2.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "position", "what"),
    [
        ("Genotype(é)", 9, "an ASCII letter"),
        ("lambda: 0", 0, "Genotype(...) with keywords"),
        ("__import__('os').getcwd()", 0, "Genotype(...) with keywords"),
        ("Genotype([])", 0, "Genotype(...) with keywords"),
        ("Genotype()", 10, "each of normal, normal_concat, reduce, reduce_concat once"),
        ("Genotype(**{})", 14, "each of normal, normal_concat, reduce, reduce_concat once"),
        (changed("reduce=[", "reduce=[], reduce=["), len(DARTS_V2) + 11, "each of normal, normal_concat, reduce,"),
        (changed("range(2, 6)", "range(3, 6)"), DARTS_V2.index("range(2"), "range(2, 6)"),
        (changed("range(2, 6)", "+".join("1" * 150)), DARTS_V2.index("range(2"), "range(2, 6)"),
        (changed("('sep_conv_3x3', 0), ", ""), DARTS_V2.index("["), "a list of 8 pairs"),
        (changed("('sep_conv_3x3', 0)", "'sep_conv_3x3'"), FIRST - 22, "a pair of operation and node"),
        (changed("'sep_conv_3x3', 1", "'sep_conv_7x7', 1"), FIRST, "one of skip_connect, avg_pool_3x3"),
        (changed("'sep_conv_3x3', 1", "['none'], 1"), FIRST, "one of skip_connect, avg_pool_3x3"),
        (changed("'sep_conv_3x3', 1", "'none', 1"), FIRST, "one of skip_connect, avg_pool_3x3"),
        (changed("'sep_conv_3x3', 1", "'sep_conv_3x3', 2"), FIRST + 16, "a node from 0 to 1"),
        (changed("'sep_conv_3x3', 1", "'sep_conv_3x3', -1"), FIRST + 16, "a node from 0 to 1"),
        (changed("'sep_conv_3x3', 1", "'sep_conv_3x3', True"), FIRST + 16, "a node from 0 to 1"),
        (
            changed("'sep_conv_3x3', 1", "'sep_conv_3x3', 0"),
            FIRST - 1,
            "another node than 0 for the second operation of",
        ),
    ],
)
def test_a_bad_genotype_is_refused_with_the_position(text: str, position: int, what: str) -> None:
    with pytest.raises(InvalidValue) as error:
        parse_genotype(TINY, text)
    shown, said = str(error.value).split(" does not parse: ")
    assert shown == repr(text)
    assert said.startswith(f"at position {position} {what}")
    assert "Genotype(normal=[('sep_conv_3x3', 1)," in said


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "Genotype(normal=[(", changed("=[(", "=([("), "(" * 1000 + ")" * 1000, "-" * 50_000 + "1", "\0"],
    ids=["nothing", "half", "open", "unbalanced", "deep", "deeper", "binary"],
)
def test_what_is_no_python_is_refused_with_a_position(text: str) -> None:
    # The position is the parser's own, which differs between versions of Python.
    with pytest.raises(InvalidValue, match=r"does not parse: at position \d+ a genotype is expected, not"):
        parse_genotype(TINY, text)


def test_only_the_first_node_needs_its_operations() -> None:
    # Were a cell to read none of the cell before, that one would be computed for nothing.
    third = DARTS_V2.replace("('sep_conv_3x3', 1), ('skip_connect', 0)", "('none', 1), ('none', 0)")
    arch = parse_genotype(TINY, third)
    assert OPERATIONS[arch["normal_4_first"]] == OPERATIONS[arch["normal_4_second"]] == "none"
    found = {node.name: node.op.key for node in TINY.network(arch)}
    assert found["cell1.node_4"] == "zero 8x32x32>8x32x32 stride=1"


def test_a_genotype_of_another_space() -> None:
    with pytest.raises(InvalidValue, match="nasbench201-tiny has no DARTS cells; use darts or darts-tiny"):
        parse_genotype(make_space("nasbench201-tiny"), DARTS_V2)
    with pytest.raises(InvalidValue, match="normal_2_first is 6, which is not among 1, 2"):
        parse_genotype(TINY.fix(normal_2_first=[1, 2]), DARTS_V2)
