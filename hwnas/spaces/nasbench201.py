"""NAS-Bench-201: a cell of 4 nodes and 6 edges, each with one of 5 operations.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020
(section 2.1 and figure 1): a 3x3 convolution, three stages of equal cells with a residual block of stride 2 between
them, a linear classifier on the mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import networkx as nx

from hwnas.errors import InvalidValue
from hwnas.spaces.arch import Arch
from hwnas.spaces.cells import edge_op, expected, node_op
from hwnas.spaces.ops import Op, Shape, make_op
from hwnas.spaces.options import SpaceOptions, scaled_channels
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Value, Variable
from hwnas.spaces.space import Space
from hwnas.spaces.wiring import IMAGE, Position

# ascending by cost: the smallest network of a space has the first everywhere, the largest the last
OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # in the order of the benchmark's strings
_STAGES = (1, 2, 3)
_LAST = 3  # the output node of a cell
_FORM = "A cell is written |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"


@dataclass(frozen=True, slots=True, kw_only=True)
class NasBench201:
    """A family of NAS-Bench-201 networks.

    Attributes:
        channels: of the first stage; each further stage doubles them.
        cells: per stage.
        resolutions: the choices, ascending.
        classes, in_channels: defaults, overridden by the data.
        aspect: width to height of the images.
    """

    name: str
    channels: int
    cells: int
    resolutions: tuple[int, ...] = (32,)
    classes: int
    in_channels: int
    aspect: str = SQUARE

    @property
    def options(self) -> SpaceOptions:
        """The options of this family, with its values."""
        return SpaceOptions.model_construct(resolution=self.resolutions, width=1.0, aspect=self.aspect)

    def adjusted(self, options: SpaceOptions) -> NasBench201:
        """This family with options; those that are None keep their values. `width` scales `channels`.

        Raises:
            InvalidValue: a side is not a multiple of 4, or the number of channels is not an integer.
        """
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        check_sides(resolutions, 4, multiple=4, aspect=aspect)
        channels = scaled_channels(self.channels, options.width or 1.0, multiple=1)
        return replace(self, resolutions=resolutions, channels=channels, aspect=aspect)

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes."""
        choices = tuple(range(len(OPERATIONS)))
        variables = [Variable(name="resolution", values=self.resolutions)]
        variables += [Variable(name=_edge(*edge), values=choices) for edge in EDGES]
        fixed = ("resolution",)
        slots = [Slot(name="stem", group="stem", variables=fixed, op=partial(_stem, self, in_channels))]
        for s in _STAGES:
            if s > 1:
                slots.append(
                    Slot(name=f"stage{s}.reduce", group=f"stage{s}", variables=fixed, op=partial(_reduce, self, s))
                )
            slots += _cell_slots(self, s)
        slots.append(Slot(name="classifier", group="head", variables=fixed, op=partial(_classifier, self, classes)))
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots),
            classes=classes,
            in_channels=in_channels,
            aspect=self.aspect,
            wiring=tuple(self._places()),
            shares_weights=False,
        )

    def _places(self) -> Iterator[Position]:
        yield Position(name="stem", slot="stem", reads=(IMAGE,))
        before = "stem"
        for s in _STAGES:
            if s > 1:
                yield Position(name=f"stage{s}.reduce", slot=f"stage{s}.reduce", reads=(before,))
                before = f"stage{s}.reduce"
            for c in range(1, self.cells + 1):
                yield from _cell_places(s, f"stage{s}.cell{c}", before)
                before = f"stage{s}.cell{c}.node_{_LAST}"
        yield Position(name="classifier", slot="classifier", reads=(before,))


def _cell_places(s: int, cell: str, before: str) -> Iterator[Position]:
    for j in range(_LAST + 1):
        for i in range(j):
            read, name = f"{cell}.node_{i}" if i else before, _edge(i, j)
            yield Position(name=f"{cell}.{name}", slot=f"stage{s}.{name}", reads=(read,), activated=f"{cell}.relu_{i}")
        if j:
            reads = tuple(f"{cell}.{_edge(i, j)}" for i in range(j))
            yield Position(name=f"{cell}.node_{j}", slot=f"stage{s}.node_{j}", reads=reads)
        if j < _LAST:
            read = f"{cell}.node_{j}" if j else before
            yield Position(name=f"{cell}.relu_{j}", slot=f"stage{s}.relu_{j}", reads=(read,))


def _edge(i: int, j: int) -> str:
    return f"edge_{i}_{j}"


def _shape(net: NasBench201, s: int, resolution: int) -> Shape:
    height, width = image_sides(resolution, net.aspect)
    times = 2 ** (s - 1)
    return net.channels * times, -(-height // times), -(-width // times)


def _stem(net: NasBench201, in_channels: int, resolution: int) -> Op:
    input_ = (in_channels, *image_sides(resolution, net.aspect))
    return make_op("conv", input_, _shape(net, 1, resolution), kernel=3, stride=1, act="none")


def _reduce(net: NasBench201, s: int, resolution: int) -> Op:
    return make_op("basic-block", _shape(net, s - 1, resolution), _shape(net, s, resolution), kernel=3, stride=2)


def _classifier(net: NasBench201, classes: int, resolution: int) -> Op:
    return make_op("bn-linear", _shape(net, 3, resolution), (classes,))


def _cell_slots(net: NasBench201, s: int) -> Iterator[Slot]:
    """The activations, edges and nodes of a stage's cells."""
    group, all_edges = f"stage{s}", tuple(_edge(*edge) for edge in EDGES)
    for j in range(4):
        if j:
            for i in range(j):
                yield Slot(
                    name=f"{group}.{_edge(i, j)}",
                    group=group,
                    variables=("resolution", _edge(i, j)),
                    op=partial(_edge_op, net, s),
                    needed_by=all_edges,
                    needed=_EDGE_RUNS[i, j],
                )
            yield Slot(
                name=f"{group}.node_{j}",
                group=group,
                variables=("resolution", *(_edge(*edge) for edge in _edges_up_to(j) if j > 1)),
                op=partial(_node_op, net, s, j),
                needed_by=all_edges,
                needed=_NODE_RUNS[j],
            )
        if j < _LAST:
            yield Slot(
                name=f"{group}.relu_{j}",
                group=group,
                variables=("resolution",),
                op=partial(_relu_op, net, s),
                needed_by=all_edges,
                needed=_RELU_RUNS[j],
            )


def _edge_op(net: NasBench201, s: int, resolution: int, choice: int) -> Op | None:
    shape = _shape(net, s, resolution)
    return edge_op(OPERATIONS[choice], shape, shape)


def _node_op(net: NasBench201, s: int, j: int, resolution: int, *choices: int) -> Op | None:
    """The sum in a node. Without edges, an inner node has no output, and the output node of the cell is zeros."""
    if j == 1:  # it has one edge
        return None
    shape, terms = _shape(net, s, resolution), sum(to == j for _, to in _live(*choices))
    return None if j < _LAST and not terms else node_op(terms, shape, shape)


def _edges_up_to(j: int) -> list[tuple[int, int]]:
    """The edges that the inputs of a node depend on."""
    return [edge for edge in EDGES if edge[1] <= j]


@cache
def _live(*choices: int) -> tuple[tuple[int, int], ...]:
    """The edges with an output, from the operations on the first of `EDGES`, or on all."""
    found: list[tuple[int, int]] = []
    for (i, j), choice in zip(EDGES, choices, strict=False):
        if OPERATIONS[choice] != "none" and (i == 0 or any(to == i for _, to in found)):
            found.append((i, j))
    return tuple(found)


def _relu_op(net: NasBench201, s: int, resolution: int) -> Op:
    shape = _shape(net, s, resolution)
    return make_op("relu", shape, shape)


class _Cell:
    """The edges and nodes of a cell that run, from the operations on its edges in the order of `EDGES`."""

    def __init__(self, *choices: int) -> None:
        self.chosen = {edge: OPERATIONS[choice] for edge, choice in zip(EDGES, choices, strict=True)}
        # The value of each node, None without an output: equal values are computed once, in the first such node.
        self.gives: dict[int, object] = {0: 0}
        self.live = live = _live(*choices)
        for j in (1, 2, _LAST):
            reach = [edge for edge in live if edge[1] == j]
            name, source = (self.chosen[reach[0]], self.gives[reach[0][0]]) if len(reach) == 1 else ("", None)
            self.gives[j] = j if reach else None
            if name == "skip_connect":
                self.gives[j] = source
            elif name == "avg_pool_3x3":
                self.gives[j] = (name, source)
        second = (2, _LAST) in live
        self.needed = {1: (1, _LAST) in live or ((1, 2) in live and second), 2: second, _LAST: True}

    def same(self, i: int, prefix: str) -> list[tuple[int, int]]:
        """The edges with this operation on the value of a node."""
        return [e for e in EDGES if self.chosen[e].startswith(prefix) and self.gives[e[0]] == self.gives[i] is not None]

    def first(self, j: int) -> bool:
        """Whether a node is the first with its value."""
        return next(k for k in self.gives if self.gives[k] == self.gives[j]) == j


@cache
def _cell(*choices: int) -> _Cell:
    """Cached: every slot of a cell needs it for every cell."""
    return _Cell(*choices)


def _edge_runs(i: int, j: int, *choices: int) -> bool:
    cell = _cell(*choices)
    if cell.chosen[i, j] != "avg_pool_3x3":
        return (i, j) in cell.live and cell.needed[j]
    same = cell.same(i, "avg_pool")
    return same[:1] == [(i, j)] and any(cell.needed[to] for _, to in same)


def _node_runs(j: int, *choices: int) -> bool:
    return _cell(*choices).needed[j]


def _relu_runs(i: int, *choices: int) -> bool:
    cell = _cell(*choices)
    return cell.first(i) and any(cell.needed[to] for _, to in cell.same(i, "nor_conv"))


# Single objects, so that results are computed once for all stages.
_EDGE_RUNS = {edge: partial(_edge_runs, *edge) for edge in EDGES}
_NODE_RUNS = {j: partial(_node_runs, j) for j in (1, 2, 3)}
_RELU_RUNS = {i: partial(_relu_runs, i) for i in (0, 1, 2)}


def nasbench201_string(arch: Mapping[str, Value]) -> str:
    """The cell of an arch in the benchmark's notation: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``."""
    nodes = ["".join(f"|{OPERATIONS[int(arch[_edge(i, j)])]}~{i}" for i in range(j)) + "|" for j in (1, 2, 3)]
    return "+".join(nodes)


def parse_nasbench201(space: Space, text: str) -> Arch:
    """The arch of a cell in the benchmark's notation, at the space's largest resolution.

    Raises:
        InvalidValue: the text does not parse (the message gives the position and what is expected), the space is
            restricted to other operations, or it is not a NAS-Bench-201 space.
    """
    if _edge(0, 1) not in space.column:
        raise InvalidValue(f"{space.name} has no NAS-Bench-201 cells; use nasbench201 or nasbench201-tiny")
    choices, at = {}, 0
    for i, j in EDGES:
        opening = "+|" if i == 0 and j > 1 else "|"
        if not text.startswith(opening, at):
            raise expected(text, at, repr(opening), _FORM)
        at += len(opening)
        name = re.compile(r"\w*").match(text, at)
        assert name is not None
        if name[0] not in OPERATIONS:
            raise expected(text, at, f"one of {', '.join(OPERATIONS)}", _FORM)
        at = name.end()
        if not text.startswith(f"~{i}", at):
            raise expected(text, at, f"'~{i}' (the node that the operation reads)", _FORM)
        at += 2
        choices[_edge(i, j)] = OPERATIONS.index(name[0])
        if i == j - 1:
            if not text.startswith("|", at):
                raise expected(text, at, "'|'", _FORM)
            at += 1
    if at < len(text):
        raise expected(text, at, "the end", _FORM)
    return space.arch({**space.largest, **choices})


def nasbench201_function(arch: Mapping[str, Value], *, zeros: bool = True) -> str:
    """The function of an arch's cell as canonical text: cells with equal texts are isomorphic.

    The cell is traversed from the input: the terms of a node are sorted, a skip connection is replaced by the text of
    its node, and an operation without an input is dropped.

    Args:
        arch: of a NAS-Bench-201 space.
        zeros: whether edges without an output appear in the sums as ``#``. The benchmark counts 6,466 unique
            networks this way; with those edges removed there are 5,390.
    """
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_weighted_edges_from(((*edge, OPERATIONS[int(arch[_edge(*edge)])]) for edge in EDGES), weight="op")
    text = {0: "0"}
    for node in list(nx.topological_sort(graph))[1:]:
        terms = [_term(op, text[source]) for source, _, op in graph.in_edges(node, data="op")]
        text[node] = "+".join(sorted(term for term in terms if zeros or term != "#")) or "#"
    return text[3]


def _term(operation: str, source: str) -> str:
    if operation == "none" or source == "#":
        return "#"
    return source if operation == "skip_connect" else f"({source})@{operation}"


NASBENCH201S = (
    NasBench201(name="nasbench201", channels=16, cells=5, classes=10, in_channels=3),
    NasBench201(name="nasbench201-tiny", channels=16, cells=1, classes=10, in_channels=1),
)
