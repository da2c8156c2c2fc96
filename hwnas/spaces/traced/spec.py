"""A traced network as plain values: what it computes, and which of its sizes are variables.

The file ``network.json`` beside the weights of an elastic supernet has one. A size is a sum over groups of units, so
the network of any choice of widths can be written down without the module that it was traced from. Segments of equal
form share one graph, wherever they occur: they are the same op.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, PositiveInt, model_validator

from hwnas.files import Spec

FIXED = -1
Piece: TypeAlias = Annotated[list[int], Field(min_length=2, max_length=2)]
# Pieces ``[group, elements of a unit]``, of which a fixed one is ``[-1, elements]``; or a multiple of the number of
# images.
Size: TypeAlias = list[Piece] | PositiveInt
Units: TypeAlias = Sequence[int]


class WeightSpec(Spec):
    """A parameter or buffer of a segment.

    Attributes:
        sizes: of its dimensions.
        parameter: whether it is a parameter.
        dtype: torch's name of its type.
        frozen: whether it is a parameter that training leaves as it is; not in the file if it is not.
    """

    sizes: list[Size]
    parameter: bool
    dtype: str = "float32"
    frozen: bool = Field(default=False, exclude_if=lambda frozen: not frozen)

    def shape(self, units: Units) -> tuple[int, ...]:
        """Its shape with some numbers of units."""
        return tuple(size_of(size, units) for size in self.sizes)


class NodeSpec(Spec):
    """One operation.

    Attributes:
        name: of its output.
        op: ``namespace.operator.overload`` of torch, or ``getitem``.
        args, kwargs: JSON values; ``{"value": name}`` and ``{"weight": name}`` are read, ``{"sizes": [...]}`` and
            ``{"size": ...}`` depend on widths, ``{"images": true}`` is the number of images.
        sizes: of its output, with the number of images first; None for several outputs.
    """

    name: str
    op: str
    args: list[JsonValue]
    kwargs: dict[str, JsonValue] = Field(default={})
    sizes: list[Size] | None

    @cached_property
    def values(self) -> list[str]:
        """Names of the values that it reads."""
        return _named([self.args, list(self.kwargs.values())], "value")

    @cached_property
    def weights(self) -> list[str]:
        """Names of the weights that it reads."""
        return _named([self.args, list(self.kwargs.values())], "weight")


class RankSpec(Spec):
    """A choice of a linear layer or 1x1 convolution: itself, or two thinner ones one after the other.

    Attributes:
        group: of the graph; its number of units is the rank.
        full: number of units that stands for the layer itself, the smaller one of its dimensions.
        whole: its weight, ``(out, in)``.
        down, up: weights of the thinner layers, ``(rank, in)`` and ``(out, rank)``.
    """

    group: int
    full: PositiveInt
    whole: str
    down: str
    up: str


class SegmentGraph(Spec):
    """The operations of a segment, with names and groups of its own.

    Attributes:
        input: sizes of the value that it reads, without the number of images; the value is named ``input``.
        nodes: in the order of execution; the last one makes its output.
        weights: what the nodes read.
        groups: number of groups that its sizes refer to.
        ranks: name of a node -> its choice of a rank; not in the file if there is none.
        expert: name of the network that it is a stage of, in a hybrid: two networks of equal layers have their own
            weights. Not in the file if it is empty.
    """

    input: list[Size]
    nodes: list[NodeSpec] = Field(min_length=1)
    weights: dict[str, WeightSpec]
    groups: int = Field(ge=0)
    ranks: dict[str, RankSpec] = Field(default={}, exclude_if=lambda ranks: not ranks)
    expert: str = Field(default="", exclude_if=lambda expert: not expert)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known = {"input"}
        for node in self.nodes:
            if missing := [name for name in node.values if name not in known]:
                raise ValueError(f"node {node.name} reads {missing[0]}, which no earlier node makes")
            if missing := [name for name in node.weights if name not in self.weights]:
                raise ValueError(f"node {node.name} reads the weight {missing[0]}, which is not listed")
            known.add(node.name)
        if self.nodes[-1].sizes is None:
            raise ValueError("the last node has several outputs")
        of_weights = [size for weight in self.weights.values() for size in weight.sizes]
        if any(isinstance(size, int) for size in of_weights):
            raise ValueError("a weight has a dimension of the number of images")
        for size in (*self.input, *of_weights, *(size for node in self.nodes for size in node.sizes or ())):
            for group, width in [] if isinstance(size, int) else size:
                if not FIXED <= group < self.groups or width < 1:
                    raise ValueError(f"a size has the piece [{group}, {width}]; there are {self.groups} groups")
        names = {node.name for node in self.nodes}
        for name, rank in self.ranks.items():
            missing = [weight for weight in (rank.whole, rank.down, rank.up) if weight not in self.weights]
            if name not in names or missing or not 0 <= rank.group < self.groups:
                raise ValueError(f"the rank of {name} has a node, group or weight that is not listed")
        return self

    @cached_property
    def digest(self) -> str:
        """Hash of the content; it starts with a letter, so that it is a text in the key of an op."""
        document = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return f"s{hashlib.sha256(document.encode()).hexdigest()[:12]}"

    @property
    def output(self) -> list[Size]:
        """Sizes of the value that it makes, without the number of images."""
        sizes = self.nodes[-1].sizes
        assert sizes is not None
        return sizes[1:]

    def useful(self, units: Units) -> tuple[int, ...]:
        """The units, with full ranks where the two thinner layers would have no fewer weights than the layer itself."""
        found = list(units)
        for rank in self.ranks.values():
            out, into, *_ = self.weights[rank.whole].shape(units)
            if found[rank.group] * (out + into) >= out * into:
                found[rank.group] = rank.full
        return tuple(found)

    def unused(self, units: Units) -> set[str]:
        """Weights that its nodes do not read with these units."""
        found = set()
        for rank in self.ranks.values():
            found |= {rank.down, rank.up} if units[rank.group] == rank.full else {rank.whole}
        return found

    def is_like(self, other: SegmentGraph) -> bool:
        """Whether another graph has the same nodes, weights and groups: it may differ in sizes of images."""
        same = self.weights == other.weights and self.groups == other.groups and self.ranks == other.ranks
        return same and [(n.name, n.op) for n in self.nodes] == [(n.name, n.op) for n in other.nodes]

    def shapes(self, units: Units) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of its input and output, without the number of images."""
        return _shape(self.input, units), _shape(self.output, units)


class GroupSpec(Spec):
    """Channels, heads or features that are kept or left out together; or the rank of a layer.

    Attributes:
        name: of a layer that makes them.
        layers: all layers that make them: their outputs meet, so they change together.
        units: their number in the whole network.
        width: channels of a unit, for readers.
        choices: numbers of units to choose from, ascending; the last is `units`.
        rank: whether it is the rank of a layer (`RankSpec`); not in the file if it is not.
    """

    name: str
    layers: list[str]
    units: PositiveInt
    width: PositiveInt
    choices: list[PositiveInt] = Field(min_length=1)
    rank: bool = Field(default=False, exclude_if=lambda rank: not rank)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if sorted(set(self.choices)) != self.choices or self.choices[-1] != self.units:
            raise ValueError(f"choices of {self.name} should ascend to {self.units}, not {self.choices}")
        return self


class ExpertSpec(Spec):
    """A stage of another network that can be in the place of a segment.

    Attributes:
        graph: digest of its operations, between projections to the segment's maps; one that reads the image has one.
        weights: name in the graph -> name in the hybrid.
    """

    graph: str
    weights: dict[str, str]


class SegmentSpec(Spec):
    """A segment of a network: the operations between two values through which everything flows.

    Attributes:
        name: of its slot.
        group: of its slot.
        graph: digest of its operations.
        groups: number in the network of each group of the graph.
        weights: name in the graph -> name in the network.
        block: number of the switch that leaves it out, from 1; None for a segment that every network has.
        smaller: digests of its operations for smaller images, in the order of `NetworkSpec.resolutions`.
        experts: name of another network -> its stage, which can be chosen instead; not in the file if there is none.
    """

    name: str
    group: str
    graph: str
    groups: list[int]
    weights: dict[str, str]
    block: PositiveInt | None = None
    smaller: list[str] = Field(default=[], exclude_if=lambda smaller: not smaller)
    experts: dict[str, ExpertSpec] = Field(default={}, exclude_if=lambda experts: not experts)

    @property
    def graphs(self) -> list[str]:
        """Digests for all resolutions, ascending."""
        return [*self.smaller, self.graph]

    def weights_of(self, digest: str) -> Mapping[str, str]:
        """Name in a graph of the segment -> name in the network."""
        return next((each.weights for each in self.experts.values() if each.graph == digest), self.weights)


class NetworkSpec(Spec):
    """``network.json``.

    Attributes:
        schema_: version of the file format, ``schema`` in the file.
        name: of the network, a part of the name of its space.
        input: shape of an image, ``[channels, height, width]``.
        classes: number of outputs.
        groups: all groups with a choice.
        fixed: groups that a layer makes, but that have no choice -> why.
        graphs: digest -> graph.
        segments: in the order of execution.
        smaller: heights of smaller images that it can take, ascending; their width is in proportion.
    """

    schema_: Literal[1] = Field(alias="schema", default=1)
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    input: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)]
    classes: PositiveInt
    groups: list[GroupSpec]
    fixed: dict[str, str] = Field(default={})
    graphs: dict[str, SegmentGraph]
    segments: list[SegmentSpec] = Field(min_length=1)
    smaller: list[PositiveInt] = Field(default=[], exclude_if=lambda smaller: not smaller)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.resolutions != sorted(set(self.resolutions)):
            raise ValueError(f"heights of images should ascend to {self.input[1]}, not {self.smaller}")
        names = [segment.name for segment in self.segments]
        if len(set(names)) < len(names) or not all(names):
            raise ValueError("segments have different names that are not empty")
        for name, graph in self.graphs.items():
            if graph.digest != name:
                raise ValueError(f"the graph {name} was changed")
        for segment in self.segments:
            for digest in segment.graphs:
                if digest not in self.graphs:
                    raise ValueError(f"segment {segment.name} has the graph {digest}, which is not listed")
            graph_ = self.graphs[segment.graph]
            likes = [self.graphs[digest] for digest in segment.smaller]
            if len(likes) != len(self.smaller) or any(not graph_.is_like(other) for other in likes):
                raise ValueError(f"segment {segment.name} does not have the same layers for all sizes of images")
            if len(set(segment.groups)) != graph_.groups or any(not 0 <= g < len(self.groups) for g in segment.groups):
                raise ValueError(f"segment {segment.name} does not have the {graph_.groups} groups of its graph")
            if set(segment.weights) != set(graph_.weights):
                raise ValueError(f"segment {segment.name} does not have the weights of its graph")
            for name, expert in segment.experts.items():
                self._check_expert(segment, name, expert)
        return self

    def _check_expert(self, segment: SegmentSpec, name: str, expert: ExpertSpec) -> None:
        """Check that a stage of another network fits into the place of a segment."""
        graph, own = self.graphs.get(expert.graph), self.graphs[segment.graph]
        where = f"the stage {segment.name} of {name}"
        if graph is None or set(expert.weights) != set(graph.weights):
            raise ValueError(f"{where} has a graph that is not listed, or not its weights")
        if self.groups or self.smaller or segment.block:
            raise ValueError(f"{where} is in a network with widths, blocks or resolutions to choose from")
        if name == self.name or graph.expert != name or graph.groups or graph.shapes(()) != own.shapes(()):
            raise ValueError(f"{where} has another name, or maps of another shape than the segment")

    @cached_property
    def digest(self) -> str:
        """Hash of the content, the part of a space's name that distinguishes networks."""
        document = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()[:12]

    @property
    def resolutions(self) -> list[int]:
        """Heights of images, ascending."""
        return [*self.smaller, self.input[1]]

    @property
    def space(self) -> str:
        """Name of its space."""
        return f"{self.name}@{self.digest}"

    @property
    def blocks(self) -> int:
        """Number of blocks that can be left out."""
        return sum(segment.block is not None for segment in self.segments)

    def json_text(self) -> str:
        """The content of the file."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), separators=(",", ":")) + "\n"


def size_of(size: Size, units: Units) -> int:
    """The number of elements of a dimension; -1 for one of the number of images.

    Args:
        size: of the dimension.
        units: number of units of each group.
    """
    if isinstance(size, int):
        return -1
    return sum(width if group == FIXED else width * units[group] for group, width in size)


def elements(sizes: Sequence[Size], units: Units) -> int:
    """The number of elements of a tensor, for one image."""
    return math.prod(size if isinstance(size, int) else size_of(size, units) for size in sizes)


def _shape(sizes: Sequence[Size], units: Units) -> tuple[int, ...]:
    return tuple(size_of(size, units) for size in sizes)


def _named(values: Sequence[Any], key: str) -> list[str]:
    """Names under a key in nested JSON values."""
    found: list[str] = []
    for value in values:
        if isinstance(value, Mapping):
            if key in value:
                found.append(str(value[key]))
        elif isinstance(value, list):
            found += _named(value, key)
    return found
