"""DARTS: a normal and a reduction cell, each with four nodes that read two earlier ones.

Source: Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (sections 2.1 and 3.1, and the
authors' genotypes). A cell reads the two cells before it; node j sums two operations on different earlier nodes; the
output concatenates all four nodes. A variable chooses the two nodes that a node reads, two more choose its operations.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

from hwnas.errors import InvalidValue
from hwnas.spaces.arch import Arch
from hwnas.spaces.cells import edge_op, expected, node_op
from hwnas.spaces.ops import Op, Shape, make_op
from hwnas.spaces.options import SpaceOptions, scaled_channels
from hwnas.spaces.sides import SQUARE, check_sides, image_sides
from hwnas.spaces.slots import Slot, Value, Variable
from hwnas.spaces.space import Space
from hwnas.spaces.wiring import IMAGE, Position

# ascending by cost
OPERATIONS = (
    "none",
    "skip_connect",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "sep_conv_3x3",
    "sep_conv_5x5",
)
NODES = (2, 3, 4, 5)  # 0 and 1 are the cell's inputs
CELLS = ("normal", "reduce")
_CONCAT = ("range(2,6)", "[2,3,4,5]", "(2,3,4,5)")  # the usual spellings of all four nodes
_FORM = (
    "A genotype is written Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0), ...], normal_concat=range(2, 6), "
    "reduce=[...], reduce_concat=range(2, 6)), with two operations for each of the nodes 2 to 5"
)


class _Cell(NamedTuple):
    """A cell in the network: its type, its index among cells of that type, and its shapes."""

    kind: str
    group: str
    inputs: tuple[Shape, Shape]
    output: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Darts:
    """A family of DARTS networks.

    Attributes:
        channels: of an operation in the first cells; each reduction doubles them. A cell outputs four times as many.
        cells: number of cells; those at one third and two thirds are reduction cells.
        resolutions: the choices, ascending; multiples of 4, because reductions halve the sides.
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

    def adjusted(self, options: SpaceOptions) -> Darts:
        """This family with options; those that are None keep their values. `width` scales `channels`.

        Raises:
            InvalidValue: a side is not a multiple of 4, or the number of channels is odd.
        """
        resolutions, aspect = options.resolution or self.resolutions, options.aspect or self.aspect
        check_sides(resolutions, 4, multiple=4, aspect=aspect)
        channels = scaled_channels(self.channels, options.width or 1.0, multiple=2)
        return replace(self, resolutions=resolutions, channels=channels, aspect=aspect)

    def space(self, *, in_channels: int, classes: int) -> Space:
        """The space of these networks for images of `in_channels` channels and `classes` classes.

        ``normal_3_inputs`` is an index into the `pairs` of node 3, ``normal_3_first`` and ``normal_3_second`` into
        `OPERATIONS`. Node 2 reads both inputs of its cell, with any operation but ``none``: otherwise the previous cell
        might be unused, and every runtime would remove it.
        """
        variables = [Variable(name="resolution", values=self.resolutions)]
        for kind, j in itertools.product(CELLS, NODES):
            choices = tuple(range(j == NODES[0], len(OPERATIONS)))
            if len(pairs(j)) > 1:
                variables.append(Variable(name=f"{kind}_{j}_inputs", values=tuple(range(len(pairs(j))))))
            variables.append(Variable(name=f"{kind}_{j}_first", values=choices))
            variables.append(Variable(name=f"{kind}_{j}_second", values=choices))
        fixed = ("resolution",)
        slots = {"stem": Slot(name="stem", group="stem", variables=fixed, op=partial(_stem, self, in_channels))}
        places = [Position(name="stem", slot="stem", reads=(IMAGE,))]
        before = ("stem", "stem")
        for number in range(self.cells):
            cell, name = partial(_cell, self, number), f"cell{number + 1}"
            for slot, place in _cell_slots(cell, self.resolutions[0], name, before):
                slots.setdefault(slot.name, slot)
                places.append(place)
            before = (before[1], f"{name}.output")
        last = partial(_classifier, self, classes)
        slots["classifier"] = Slot(name="classifier", group="head", variables=fixed, op=last)
        places.append(Position(name="classifier", slot="classifier", reads=(before[1],)))
        return Space(
            name=self.name,
            variables=tuple(variables),
            slots=tuple(slots.values()),
            classes=classes,
            in_channels=in_channels,
            aspect=self.aspect,
            wiring=tuple(places),
            shares_weights=False,
        )


@cache
def pairs(node: int) -> tuple[tuple[int, int], ...]:
    """The pairs of nodes that a node may read, in order."""
    return tuple(itertools.combinations(range(node), 2))


def _stem(net: Darts, in_channels: int, resolution: int) -> Op:
    sides = image_sides(resolution, net.aspect)
    return make_op("conv", (in_channels, *sides), (3 * net.channels, *sides), kernel=3, stride=1, act="none")


def _reductions(net: Darts) -> tuple[int, int]:
    return net.cells // 3, 2 * net.cells // 3


def _given(net: Darts, number: int, resolution: int) -> Shape:
    """Shape of a cell's output; the stem comes before the first."""
    height, width = image_sides(resolution, net.aspect)
    if number < 0:
        return 3 * net.channels, height, width
    halvings = sum(number >= reduction for reduction in _reductions(net))
    return 4 * net.channels * 2**halvings, height // 2**halvings, width // 2**halvings


def _cell(net: Darts, number: int, resolution: int) -> _Cell:
    """A cell by its index, from 0."""
    output = _given(net, number, resolution)
    stage = 1 + sum(number >= reduction for reduction in _reductions(net))
    reduces = number in _reductions(net)
    return _Cell(
        kind="reduce" if reduces else "normal",
        group=f"reduce{stage - 1}" if reduces else f"stage{stage}",
        inputs=(_given(net, number - 2, resolution), _given(net, number - 1, resolution)),
        output=(output[0] // 4, *output[1:]),
    )


def _cell_slots(
    cell: partial[_Cell], resolution: int, name: str, before: tuple[str, str]
) -> Iterator[tuple[Slot, Position]]:
    """The slots of a cell and their places; the cells of a stage share the slots of edges and nodes."""
    kind, group, *_ = cell(resolution)  # the names are the same at every resolution
    fixed = ("resolution",)

    def stands(
        slot: str, variables: tuple[str, ...], op: Callable[..., Op | None], place: str, reads: tuple[str, ...]
    ) -> tuple[Slot, Position]:
        return (
            Slot(name=slot, group=group, variables=variables, op=op),
            Position(name=place, slot=slot, reads=reads),
        )

    for i in (0, 1):
        place = f"{name}.input_{i}"
        yield stands(place, fixed, partial(_input_op, cell, i), place, (before[i],))
    node = {0: f"{name}.input_0", 1: f"{name}.input_1"} | {j: f"{name}.node_{j}" for j in NODES}
    for j in NODES:
        chosen = tuple(f"{kind}_{j}_{what}" for what in ("inputs", "first", "second"))[len(pairs(j)) == 1 :]
        for i in range(j):
            edge = f"edge_{i}_{j}"
            op = partial(_edge_op, cell, i, j)
            yield stands(f"{group}.{edge}", (*fixed, *chosen), op, f"{name}.{edge}", (node[i],))
        edges = tuple(f"{name}.edge_{i}_{j}" for i in range(j))
        yield stands(f"{group}.node_{j}", (*fixed, *chosen[-2:]), partial(_node_op, cell), node[j], edges)
    outputs = tuple(node[j] for j in NODES)
    yield stands(f"{group}.output", fixed, partial(_output_op, cell), f"{name}.output", outputs)


def _input_op(cell: partial[_Cell], i: int, resolution: int) -> Op:
    """1x1 to the cell's channels, with stride 2 after a reduction cell."""
    _, _, inputs, output = cell(resolution)
    shape = (output[0], *inputs[1][1:])
    if inputs[i][1:] == shape[1:]:
        return make_op("relu-conv", inputs[i], shape, kernel=1, stride=1)
    return make_op("factorized-reduce", inputs[i], shape)


def _read(cell: _Cell, i: int) -> Shape:
    """Shape that an edge from a node reads."""
    return (cell.output[0], *cell.inputs[1][1:]) if i < NODES[0] else cell.output


def _edge_op(cell: partial[_Cell], i: int, j: int, resolution: int, *choices: int) -> Op | None:
    here = cell(resolution)
    *inputs, first, second = choices
    pair = pairs(j)[inputs[0] if inputs else 0]
    name = OPERATIONS[(first, second)[pair.index(i)]] if i in pair else "none"
    return edge_op(name, _read(here, i), here.output)


def _node_op(cell: partial[_Cell], resolution: int, first: int, second: int) -> Op | None:
    here = cell(resolution)
    return node_op(bool(first) + bool(second), _read(here, 0), here.output)


def _output_op(cell: partial[_Cell], resolution: int) -> Op:
    shape = cell(resolution).output
    return make_op("concat", shape, (shape[0] * len(NODES), *shape[1:]), terms=len(NODES))


def _classifier(net: Darts, classes: int, resolution: int) -> Op:
    return make_op("linear", _given(net, net.cells - 1, resolution), (classes,))


def genotype(arch: Mapping[str, Value]) -> str:
    """The cells of an arch in the notation of DARTS."""
    lists = []
    for kind in CELLS:
        edges = []
        for j in NODES:
            pair = pairs(j)[int(arch.get(f"{kind}_{j}_inputs", 0))]
            names = (OPERATIONS[int(arch[f"{kind}_{j}_{which}"])] for which in ("first", "second"))
            edges += list(zip(names, pair, strict=True))
        lists.append(f"{kind}={edges}, {kind}_concat=range(2, 6)")
    return f"Genotype({', '.join(lists)})"


def parse_genotype(space: Space, text: str) -> Arch:
    """The arch whose cells a genotype describes, at the space's largest resolution.

    Raises:
        InvalidValue: the text does not parse (the message gives the position and what is expected), a node reads the
            same node twice, the space is restricted to other operations, or it is not a DARTS space.
    """
    if "normal_2_first" not in space.column:
        raise InvalidValue(f"{space.name} has no DARTS cells; use darts or darts-tiny")
    text = " ".join(
        text.split()
    )  # on one line, and below in ASCII, the positions that `ast` gives are those of the text
    if not text.isascii():
        at = next(i for i, letter in enumerate(text) if not letter.isascii())
        raise expected(text, at, "an ASCII letter", _FORM)
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = (getattr(error, "offset", None) or 1) - 1
        raise expected(text, at, "a genotype", _FORM) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Genotype" or call.args:
        raise expected(text, 0, "Genotype(...) with keywords", _FORM)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    names = [name for kind in CELLS for name in (kind, f"{kind}_concat")]
    if set(given) != set(names) or len(call.keywords) > len(names):
        raise expected(text, call.end_col_offset or 0, f"each of {', '.join(names)} once", _FORM)
    choices: dict[str, int] = {}
    for kind in CELLS:
        concat = given[f"{kind}_concat"]
        if text[concat.col_offset : concat.end_col_offset].replace(" ", "") not in _CONCAT:
            raise expected(text, concat.col_offset, "range(2, 6)", _FORM)
        choices |= _parse_cell(text, kind, given[kind])
    return space.arch({**space.largest, **choices})


def _parse_cell(text: str, kind: str, value: ast.expr) -> dict[str, int]:
    """The values of a cell's variables."""
    if not isinstance(value, ast.List) or len(value.elts) != 2 * len(NODES):
        raise expected(text, value.col_offset, f"a list of {2 * len(NODES)} pairs", _FORM)
    choices = {}
    for n, j in enumerate(NODES):
        edges = sorted(_parse_edge(text, j, value.elts[2 * n + k]) for k in (0, 1))
        pair = (edges[0][0], edges[1][0])
        if pair not in pairs(j):
            at = value.elts[2 * n + 1].col_offset
            raise expected(text, at, f"another node than {pair[0]} for the second operation of node {j}", _FORM)
        if len(pairs(j)) > 1:
            choices[f"{kind}_{j}_inputs"] = pairs(j).index(pair)
        choices[f"{kind}_{j}_first"], choices[f"{kind}_{j}_second"] = (operation for _, operation in edges)
    return choices


def _parse_edge(text: str, node: int, value: ast.expr) -> tuple[int, int]:
    """The node that an edge reads, and its operation."""
    if not isinstance(value, ast.Tuple) or len(value.elts) != 2:
        raise expected(text, value.col_offset, "a pair of operation and node", _FORM)
    name, read = value.elts
    allowed = OPERATIONS[node == NODES[0] :]
    if not isinstance(name, ast.Constant) or name.value not in allowed:
        raise expected(text, name.col_offset, f"one of {', '.join(allowed)} in quotes", _FORM)
    if not isinstance(read, ast.Constant) or type(read.value) is not int or not 0 <= read.value < node:
        raise expected(text, read.col_offset, f"a node from 0 to {node - 1}", _FORM)
    return read.value, OPERATIONS.index(str(name.value))


DARTS = (
    Darts(name="darts", channels=36, cells=20, classes=10, in_channels=3),
    Darts(name="darts-tiny", channels=8, cells=4, classes=10, in_channels=1),
)
