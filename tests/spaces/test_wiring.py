"""Networks out of places: by hand, and that what a network costs is what its nodes cost."""

from __future__ import annotations

import pytest

from hwnas.spaces import Op, Slot, make_space
from hwnas.spaces.ops import make_op
from hwnas.spaces.wiring import FROM_IMAGE, IMAGE, Position, chain, resolve

SHAPE = (2, 4, 4)
CONV = make_op("relu-conv", SHAPE, SHAPE, kernel=3, stride=1)
POOL = make_op("avgpool", SHAPE, SHAPE, kernel=3, stride=1)
NONE = make_op("none", SHAPE, SHAPE)
ZERO = make_op("zero", SHAPE, SHAPE, stride=1)


def add(terms: int) -> Op:
    return make_op("sum", SHAPE, SHAPE, terms=terms)


def resolved(*places: tuple[str, tuple[str, ...], Op | None]) -> list[tuple[str, Op, tuple[int, ...]]]:
    """Places, each with what it reads and its op -> the nodes of the network."""
    slots = {name: Slot(name=name, group="g", variables=(), op=lambda: None) for name, _, _ in places}
    wiring = [Position(name=name, slot=name, reads=reads) for name, reads, _ in places]
    nodes = resolve(wiring, slots, {name: op for name, _, op in places})
    assert all(node.slot is slots[node.name] for node in nodes)
    return [(node.name, node.op, node.reads) for node in nodes]


def test_a_chain_is_each_slot_after_the_one_before() -> None:
    slots = [Slot(name=name, group="g", variables=(), op=lambda: None) for name in "abc"]
    assert chain(slots) == (
        Position(name="a", slot="a", reads=(IMAGE,)),
        Position(name="b", slot="b", reads=("a",)),
        Position(name="c", slot="c", reads=("b",)),
    )


def test_where_no_op_stands_what_is_read_passes_on() -> None:
    found = resolved(
        ("a", (IMAGE,), None), ("b", ("a",), CONV), ("c", ("b",), None), ("d", ("c",), None), ("e", ("d", "a"), add(2))
    )
    assert found == [("b", CONV, (FROM_IMAGE,)), ("e", add(2), (0, FROM_IMAGE))]


def test_edges_that_give_nothing_are_not_read() -> None:
    found = resolved(
        ("a", (IMAGE,), CONV),
        ("none", ("a",), NONE),
        ("pool", ("a",), POOL),
        ("sum", ("none", "pool", "a"), add(2)),
        ("one", ("none", "sum"), None),  # a sum of one
        ("last", ("one",), CONV),
    )
    assert found == [
        ("a", CONV, (FROM_IMAGE,)),
        ("pool", POOL, (0,)),
        ("sum", add(2), (1, 0)),
        ("last", CONV, (2,)),
    ]


def test_a_node_that_nothing_reaches_makes_zeros_of_what_it_would_have_read() -> None:
    found = resolved(
        ("a", (IMAGE,), CONV),
        ("b", ("a",), POOL),
        ("to_b", ("b",), NONE),
        ("to_a", ("a",), NONE),
        ("node", ("to_b", "to_a"), ZERO),
        ("last", ("node",), CONV),
    )
    assert found == [
        ("a", CONV, (FROM_IMAGE,)),
        ("b", POOL, (0,)),
        ("node", ZERO, (1,)),
        ("last", CONV, (2,)),
    ]


def test_what_the_output_is_not_made_of_is_left_out_and_positions_close_up() -> None:
    found = resolved(
        ("dead", (IMAGE,), CONV),
        ("a", (IMAGE,), CONV),
        ("after_dead", ("dead",), POOL),
        ("b", ("a",), POOL),
        ("cut", ("after_dead",), NONE),
        ("node", ("a", "cut", "b"), add(2)),
        ("nobody", ("node",), CONV),
        ("last", ("node",), None),
    )
    assert found == [("a", CONV, (FROM_IMAGE,)), ("b", POOL, (0,)), ("node", add(2), (0, 1))]


def test_a_slot_in_several_places() -> None:
    slot = Slot(name="s", group="g", variables=(), op=lambda: None)
    places = [Position(name=name, slot="s", reads=(read,)) for name, read in (("x", IMAGE), ("y", "x"))]
    nodes = resolve(places, {"s": slot}, {"s": CONV})
    assert [(node.name, node.reads) for node in nodes] == [("x", (FROM_IMAGE,)), ("y", (0,))]
    assert nodes[0].slot is nodes[1].slot is slot


@pytest.mark.parametrize("name", ["nasbench201", "nasbench201-tiny", "darts", "darts-tiny"])
def test_a_sum_over_slots_is_the_sum_over_the_nodes_of_the_network(name: str) -> None:
    space = make_space(name)
    codes = space.sample(30 if name == "darts" else 100, seed=3)
    networks = [space.network(arch) for arch in space.decode(codes)]
    # Edges that nothing reads cost nothing.
    if "darts" not in name:  # where two edges that pool the same node are two terms, but one node
        assert space.slot_sum(lambda op: 1)(codes).tolist() == [len(nodes) for nodes in networks]
    weighted = space.slot_sum(lambda op: op.params > 0)(codes)
    assert weighted.tolist() == [sum(node.op.params > 0 for node in nodes) for nodes in networks]
    assert space.macs(codes).tolist() == [sum(node.op.macs for node in nodes) for nodes in networks]
    assert space.params(codes).tolist() == [sum(node.op.params for node in nodes) for nodes in networks]
    for nodes in networks:
        assert len({node.name for node in nodes}) == len(nodes)
        assert all(len(node.reads) == len(node.op.inputs) for node in nodes)
        assert all(read < i for i, node in enumerate(nodes) for read in node.reads)
        read = {i for node in nodes for i in node.reads}
        assert read == set(range(-1, len(nodes) - 1))
        assert all(nodes[i].op.output == node.op.input for node in nodes for i in node.reads if i != FROM_IMAGE)
