from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.errors import InvalidValue, UnknownName
from hwnas.spaces import SPACES, Arch, Codes, Op, Space, make_space

ALL = {name: make_space(name) for name in SPACES}
TINY = ALL["mobilenetv3-tiny"]
every_space = pytest.mark.parametrize("space", ALL.values(), ids=list(ALL))


def codes_of(space: Space) -> st.SearchStrategy[Codes]:
    """Any row of valid indices, canonical or not."""
    columns = st.tuples(*(st.integers(0, len(v.values) - 1) for v in space.variables))
    return columns.map(lambda row: np.array([row], np.uint8))


def spaces_and_codes() -> st.SearchStrategy[tuple[Space, Codes]]:
    return st.sampled_from(list(ALL.values())).flatmap(lambda s: st.tuples(st.just(s), codes_of(s)))


def assigned(space: Space, row: Codes) -> dict[str, int]:
    return {v.name: v.values[i] for v, i in zip(space.variables, row, strict=True)}


def ops_of(space: Space, values: dict[str, int] | Arch) -> list[Op]:
    return [op for _, op in space.ops(values)]


# -- size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenetv3", 25 * (9**2 + 9**3 + 9**4) ** 5),
        ("mobilenetv3-w1.2", 25 * (9**2 + 9**3 + 9**4) ** 5),
        ("mobilenetv3-tiny", 3 * (9 + 9**2 + 9**3) ** 3),
    ],
)
def test_the_size_of_a_whole_space(name: str, size: int) -> None:
    assert ALL[name].size == size


def test_the_size_is_the_number_of_different_networks() -> None:
    space = TINY.fix(
        resolution=[24, 32],
        kernel_1_1=[3, 7],
        expansion_1_1=2,
        kernel_1_2=5,
        expansion_1_2=[2, 3, 4],
        kernel_1_3=[3, 5],
        expansion_1_3=4,
        depth_2=[2, 3],
        kernel_2_1=3,
        expansion_2_1=2,
        kernel_2_2=3,
        expansion_2_2=2,
        kernel_2_3=[5, 7],
        expansion_2_3=2,
        depth_3=1,
        kernel_3_1=3,
        expansion_3_1=2,
        kernel_3_2=[3, 5],  # beyond the depth: no network differs in it
        expansion_3_2=2,
        kernel_3_3=3,
        expansion_3_3=2,
    )
    assignments = [dict(zip(space.column, v, strict=True)) for v in itertools.product(*space.choices.values())]
    networks = {tuple(ops_of(space, values)) for values in assignments}
    assert len(networks) < len(assignments)  # or the count of assignments would pass for the size
    assert space.size == len(networks) == 2 * (2 * (1 + 3 + 3 * 2)) * (1 + 2)
    codes = np.array([[v.values.index(a[v.name]) for v in space.variables] for a in assignments], np.uint8)
    assert len(np.unique(space.canonical(codes), axis=0)) == space.size


# -- sampling ----------------------------------------------------------------------------------------------------


@every_space
def test_samples_are_seeded_canonical_codes(space: Space) -> None:
    codes = space.sample(100, seed=3)
    assert codes.dtype == np.uint8
    assert codes.shape == (100, len(space.variables))
    assert np.array_equal(codes, space.sample(100, seed=3))
    assert not np.array_equal(codes, space.sample(100, seed=4))
    assert np.array_equal(codes, space.canonical(codes))


@every_space
def test_every_variable_is_drawn_uniformly(space: Space) -> None:
    n = 20_000
    codes = space.sample(n, seed=0)
    for i, variable in enumerate(space.variables):
        column = codes[:, i]
        effective = np.ones(n, bool)
        for one in space.conditions[i]:
            effective &= one.matters[codes[:, one.column]]
        column = column[effective]
        counts = np.bincount(column, minlength=len(variable.values))
        share = 1 / len(variable.values)
        deviation = math.sqrt(len(column) * share * (1 - share))
        # 5 deviations: a false alarm once in some 10,000 seeds, and the seed is fixed.
        assert np.abs(counts - len(column) * share).max() <= 5 * deviation, variable.name


def test_no_samples_and_fewer() -> None:
    assert TINY.sample(0, seed=0).shape == (0, len(TINY.variables))
    with pytest.raises(InvalidValue, match="at least 0, not -1"):
        TINY.sample(-1, seed=0)


# -- codes and archs ---------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(spaces_and_codes())
def test_codes_and_archs_are_the_same_networks(drawn: tuple[Space, Codes]) -> None:
    space, codes = drawn
    [arch] = space.decode(codes)
    canonical = space.canonical(codes)
    assert np.array_equal(space.encode([arch]), canonical)
    assert space.decode(canonical) == [arch]
    # Whatever the canonical form puts aside, it is still the network that was asked for.
    raw = assigned(space, codes[0])
    assert ops_of(space, arch) == ops_of(space, raw)
    assert space.arch(raw) == arch
    assert hash(space.arch(raw)) == hash(arch)
    assert dict(arch) == assigned(space, canonical[0])


@settings(max_examples=60, deadline=None)
@given(codes_of(TINY), codes_of(TINY))
def test_archs_are_equal_where_their_networks_are(one: Codes, other: Codes) -> None:
    # The tiny space has no two values of a variable that round to the same width.
    [a], [b] = TINY.decode(one), TINY.decode(other)
    assert (a == b) == (ops_of(TINY, a) == ops_of(TINY, b))


def test_an_arch_is_a_value() -> None:
    arch, other = TINY.decode(TINY.sample(2, seed=0))
    assert len({arch, TINY.arch(dict(arch)), other}) == 2
    assert arch != dict(arch)
    assert len(arch) == len(TINY.variables)
    assert list(arch) == [v.name for v in TINY.variables]
    with pytest.raises(KeyError):
        arch["depth_9"]
    with pytest.raises(AttributeError):
        arch.space = "x"  # type: ignore[misc]


@every_space
def test_the_ends_of_a_space(space: Space) -> None:
    first, last = (space.arch({v.name: v.values[end] for v in space.variables}) for end in (0, -1))
    assert space.largest == last
    assert (space.smallest == first) == space.depends_on_image(first) == (not space.name.startswith("nasbench201"))
    assert space.depends_on_image(space.smallest)
    sums = space.params(space.sample(200, seed=1))
    low, high = space.params(space.encode([space.smallest, space.largest]))
    assert low <= sums.min() < sums.max() <= high


def test_an_arch_of_another_space_is_refused() -> None:
    with pytest.raises(InvalidValue, match="an arch of the space mobilenetv3 was passed to the space mobilenetv3-tiny"):
        TINY.encode([ALL["mobilenetv3"].largest])
    # The two widths have the same variables: only the name tells their archs apart.
    with pytest.raises(InvalidValue, match=r"an arch of the space mobilenetv3-w1\.2"):
        ALL["mobilenetv3"].encode([ALL["mobilenetv3-w1.2"].largest])


def test_a_value_outside_the_space_is_refused() -> None:
    values = dict(TINY.largest)
    for changed in (values | {"kernel_1_3": 9}, values | {"resolution": 30}):
        with pytest.raises(InvalidValue, match=r"is (9, which is not among 3, 5, 7|30, which is not among 24, 28, 32)"):
            TINY.encode([Arch(TINY.name, tuple(changed.items()))])


def test_a_value_that_does_not_matter_may_lie_outside() -> None:
    # An arch of the whole space belongs to a restricted one if its network does.
    arch = TINY.arch(dict(TINY.largest) | {"depth_1": 1})
    assert arch["kernel_1_3"] == 3
    restricted = TINY.fix(kernel_1_3=7)
    [found] = restricted.decode(restricted.encode([arch]))
    assert ops_of(restricted, found) == ops_of(TINY, arch)


def test_arch_names_what_is_missing_and_unknown() -> None:
    values = dict(TINY.largest)
    del values["depth_2"]
    with pytest.raises(InvalidValue, match=r"missing: \['depth_2'\], unknown: \['depth_9'\]"):
        TINY.arch(values | {"depth_9": 1})
    with pytest.raises(InvalidValue, match="resolution is 25, which is not among 24, 28, 32"):
        TINY.arch(dict(TINY.largest) | {"resolution": 25})


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros(len(TINY.variables), np.uint8),
        np.zeros((2, len(TINY.variables) + 1), np.uint8),
        np.zeros((2, len(TINY.variables)), np.int64),
    ],
)
def test_what_are_not_codes(codes: Codes) -> None:
    with pytest.raises(InvalidValue, match="codes of mobilenetv3-tiny must be a uint8 matrix"):
        TINY.decode(codes)


def test_an_index_beyond_the_choices() -> None:
    codes = TINY.sample(3, seed=0)
    codes[2, TINY.column["kernel_2_1"]] = 3
    with pytest.raises(InvalidValue, match="row 2: kernel_2_1 has 3 choices, there is no index 3"):
        TINY.canonical(codes)


def test_canonical_leaves_its_argument_alone() -> None:
    codes = np.array([[len(v.values) - 1 for v in TINY.variables]], np.uint8)
    codes[0, TINY.column["depth_1"]] = 0
    before = codes.copy()
    assert not np.array_equal(TINY.canonical(codes), codes)
    assert np.array_equal(codes, before)


# -- restriction -------------------------------------------------------------------------------------------------


def test_fix_keeps_columns_and_counts_what_remains() -> None:
    space = TINY.fix(resolution=28, depth_2=[3, 2], kernel_1_1={7, 3})
    assert list(space.column) == list(TINY.column)
    assert space.choices["resolution"] == [28]
    assert space.choices["depth_2"] == [2, 3]
    assert space.choices["kernel_1_1"] == [3, 7]
    assert space.choices["kernel_1_2"] == [3, 5, 7]
    codes = space.sample(500, seed=0)
    assert codes.shape[1] == len(TINY.variables)
    assert codes.max(axis=0)[space.column["kernel_1_1"]] == 1
    archs = space.decode(codes)
    assert {a["resolution"] for a in archs} == {28}
    assert {a["kernel_1_1"] for a in archs} == {3, 7}
    assert {a["depth_2"] for a in archs} == {2, 3}
    TINY.encode(archs)  # they are networks of the whole space too
    assert TINY.choices["resolution"] == [24, 28, 32]


def test_fix_leaves_fewer_ops_and_the_same_costs() -> None:
    space = TINY.fix(resolution=32, depth_3=1)
    assert set(space.distinct_ops) < set(TINY.distinct_ops)
    archs = space.decode(space.sample(50, seed=0))
    assert np.array_equal(space.macs(space.encode(archs)), TINY.macs(TINY.encode(archs)))


def test_fix_of_an_unknown_variable() -> None:
    with pytest.raises(UnknownName, match=r"unknown variable of mobilenetv3-tiny 'resolutoin'.*'resolution'"):
        TINY.fix(resolutoin=24)
    with pytest.raises(UnknownName, match="Known: resolution, depth_1, kernel_1_1"):
        TINY.variable("zzz")


@pytest.mark.parametrize(
    ("choice", "wrong"), [(30, "30"), ([24, 30, 31], "30, 31"), ([], "empty")], ids=["one", "some", "none"]
)
def test_fix_to_what_is_not_there(choice: int | list[int], wrong: str) -> None:
    with pytest.raises(InvalidValue, match=f"resolution of mobilenetv3-tiny cannot be {wrong}; choose from 24, 28, 32"):
        TINY.fix(resolution=choice)


# -- ops, sums, graphs -------------------------------------------------------------------------------------------


@every_space
def test_slot_sums_are_sums_over_the_ops(space: Space) -> None:
    codes = space.sample(30, seed=5)
    archs = space.decode(codes)
    for total, cost in ((space.macs, "macs"), (space.params, "params")):
        terms = [[getattr(op, cost) for op in ops_of(space, a)] for a in archs]
        assert np.array_equal(total(codes), [sum(row) for row in terms])
        per_slot = total.per_slot(codes)
        assert per_slot.shape == (len(codes), len(space.slots))
        assert np.array_equal(per_slot.sum(axis=1), [sum(row) for row in terms])
    standing = [{slot.name for slot, _ in space.ops(a)} for a in archs]
    for row, names in zip(space.slot_sum(lambda _: 1.0).per_slot(codes), standing, strict=True):
        counted = {slot.name for slot, term in zip(space.slots, row, strict=True) if term > 0}
        # Two edges of a DARTS cell that pool the same node are one node, but two terms.
        assert {name for name in counted if "edge" not in name or "darts" not in space.name} <= names <= counted


def test_any_cost_can_be_summed() -> None:
    space = TINY.fix(depth_1=[1, 3])
    codes = space.sample(20, seed=0)
    blocks = space.slot_sum(lambda op: op.kind == "mbconv")
    depths = [1 + sum(a[f"depth_{s}"] for s in (1, 2, 3)) for a in space.decode(codes)]
    assert blocks(codes).tolist() == depths


@every_space
def test_distinct_ops_are_those_that_archs_use(space: Space) -> None:
    assert len(set(space.distinct_ops)) == len(space.distinct_ops)
    used = {op for arch in space.decode(space.sample(300, seed=2)) for op in ops_of(space, arch)}
    assert used <= set(space.distinct_ops)
    for slot in space.slots:
        array = space.slot_ops(slot)
        assert array.shape == tuple(len(space.variable(name).values) for name in slot.variables)


@every_space
def test_the_graph_of_a_network(space: Space) -> None:
    for arch in (space.largest, space.smallest, *space.decode(space.sample(10, seed=6))):
        graph = space.graph(arch)
        found = space.ops(arch)
        assert [place["op"] for _, place in graph.nodes(data=True)] == [op for _, op in found]
        if space.wiring is None:
            names = [slot.name for slot, _ in found]
            assert list(graph.nodes) == names
            assert list(graph.edges) == list(itertools.pairwise(names))
        for _, place in graph.nodes(data=True):
            assert (place["macs"], place["params"]) == (place["op"].macs, place["op"].params)
        for producer, consumer, edge in graph.edges(data=True):
            assert edge["shape"] == graph.nodes[producer]["op"].output
            assert edge["shape"] in graph.nodes[consumer]["op"].inputs
        *others, last = graph.nodes
        assert all(graph.out_degree(name) for name in others) and not graph.out_degree(last)
        [macs], [params] = space.macs(space.encode([arch])), space.params(space.encode([arch]))
        assert sum(node["macs"] for _, node in graph.nodes(data=True)) == macs
        assert sum(node["params"] for _, node in graph.nodes(data=True)) == params
        assert graph.graph == {"space": space.name, "arch": dict(arch)}
        assert found[0][1].input == space.input_shape(arch)
        assert found[-1][1].output == (space.classes,)
