"""Hybrids: networks whose stages are those of several trained networks.

A network is cut where its maps have a size that maps of all others have, too (`common_sides`). In each place between
two cuts, the trunk has its own stage, and every other network, an expert, offers its stage, frozen, between two learned
projections (1x1 convolutions with BN) to the trunk's channels. As all maps between places are the trunk's, places are
independent: the choice of one is an ordinary variable of the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import JsonValue

from hwnas.errors import ModelError
from hwnas.spaces.traced import NetworkSpec, NodeSpec, SegmentGraph, SegmentSpec, WeightSpec
from hwnas.spaces.traced.spec import FIXED, ExpertSpec, Size
from hwnas.tracing.choices import Choices, ElasticOptions
from hwnas.tracing.cuts import Part, operation, parts_of
from hwnas.tracing.network import Written, check_weights, until_output
from hwnas.tracing.trace import Step, Trace

Sides = tuple[int, int]
_WHOLE = ElasticOptions(shares=(), blocks=False)
_PROJECTION = "projection_"  # of the names of weights
_CONV, _NORM = "aten.conv2d.default", "aten._native_batch_norm_legit_no_training.default"
_OF_IMAGES = ("conv2d", "_native_batch_norm_legit_no_training", "max_pool2d", "avg_pool2d")  # channels are axis 1
_REORDERS = ("permute", "transpose", "view", "reshape", "_unsafe_view", "movedim", "layer_norm", "linear")
_MOMENTUM, _EPS = 0.1, 1e-5


def is_projection(weight: str) -> bool:
    """Whether a weight of a graph, by its name there, belongs to a projection."""
    return weight.startswith(_PROJECTION)


def common_sides(traces: Mapping[str, Trace]) -> list[Sides]:
    """Heights and widths of maps at which all networks can be cut, in the order of execution.

    There is one for each halving of the images: the map with the fewest elements, as a projection reads or writes it
    (the end of an inverted residual rather than its middle), and the last one of these. Between two cuts, every network
    has a layer with weights.

    Args:
        traces: name of a network -> its trace, all for images of one size; the first one is the trunk.

    Raises:
        ModelError: there are none.
    """
    steps = {name: until_output(trace) for name, trace in traces.items()}
    found = {name: _maps(trace, steps[name]) for name, trace in traces.items()}
    first, trunk = next(iter(traces.items()))
    own = found[first]
    best: dict[int, Sides] = {}
    for sides, part in own.items():
        halvings = round(math.log2(trunk.input[1] / sides[0]))
        known = best.get(halvings)
        if all(sides in maps for maps in found.values()) and (
            known is None or _elements(trunk, part) <= _elements(trunk, own[known])
        ):
            best.pop(halvings, None)
            best[halvings] = sides
    common: list[Sides] = []
    begins = dict.fromkeys(traces, 0)
    for sides in best.values():
        ends = {name: maps[sides].first for name, maps in found.items()}
        if all(
            any(read.weight for step in steps[name][begins[name] : end] for read in step.reads)
            for name, end in ends.items()
        ):
            common.append(sides)
            begins = ends
    if not common:
        listed = "; ".join(
            f"{name} has {', '.join(f'{height} x {width}' for height, width in maps) or 'none'}"
            for name, maps in found.items()
        )
        raise ModelError(f"the networks have no maps of a common size, at which they could be cut: {listed}")
    return common


def staged(trace: Trace, name: str, sides: Sequence[Sides]) -> NetworkSpec:
    """The spec of a network cut behind a map of each size; nothing in it can be narrower.

    Args:
        trace: of the network.
        name: of the network.
        sides: heights and widths of maps, in the order of execution (`common_sides`).

    Raises:
        ModelError: stages share a weight.
    """
    steps = until_output(trace)
    maps = _maps(trace, steps)
    begins = [parts_of(steps, blocks=False)[0], *(maps[each] for each in sides)]
    ends = [*(part.first for part in begins[1:]), len(steps)]
    names = [*(f"stage{number}" for number in range(1, len(sides) + 1)), "head"]
    whole = [
        replace(part, name=own, group=own, end=end, removable=False)
        for part, end, own in zip(begins, ends, names, strict=True)
    ]
    check_weights(steps, whole)
    numbers = Choices(trace, steps, whole, _WHOLE)
    written = [Written(trace, steps, part, numbers) for part in whole]
    return NetworkSpec(
        name=name,
        input=list(trace.input),
        classes=trace.classes,
        groups=[],
        graphs={one.graph.digest: one.graph for one in written},
        segments=[
            SegmentSpec(name=part.name, group=part.group, graph=one.graph.digest, groups=[], weights=one.weights)
            for part, one in zip(whole, written, strict=True)
        ],
    )


def hybrid_of(trunk: NetworkSpec, experts: Mapping[str, NetworkSpec]) -> NetworkSpec:
    """The spec of a hybrid.

    Args:
        trunk: a network in stages (`staged`), which gives the last one, and whose weights are trained.
        experts: name -> another network in as many stages, whose weights are frozen. The name in the hybrid of a
            weight is the expert's name, a colon, and its name.
    """
    graphs, segments = dict(trunk.graphs), []
    for place, segment in enumerate(trunk.segments[:-1]):
        own, found = trunk.graphs[segment.graph], dict[str, ExpertSpec]()
        for name, network in experts.items():
            theirs = network.segments[place]
            graph = _between_projections(network.graphs[theirs.graph], own, name, reads_image=place == 0)
            graphs[graph.digest] = graph
            weights = {local: f"{name}:{weight}" for local, weight in theirs.weights.items()}
            weights |= {each: f"{name}:{segment.name}.{each}" for each in graph.weights if is_projection(each)}
            found[name] = ExpertSpec(graph=graph.digest, weights=weights)
        segments.append(segment.model_copy(update={"experts": found}))
    return NetworkSpec(
        name=trunk.name,
        input=trunk.input,
        classes=trunk.classes,
        groups=[],
        graphs=graphs,
        segments=[*segments, trunk.segments[-1]],
    )


def _maps(trace: Trace, steps: Sequence[Step]) -> dict[Sides, Part]:
    """Height and width of a map -> the part that reads the smallest one of that size, in the order of execution."""
    found: dict[Sides, Part] = {}
    for part in parts_of(steps, blocks=False)[1:]:
        if len(part.given) != 4 or _channels_last(steps[: part.first]):
            continue
        height, width = (trace.groups.size(dim) for dim in part.given[2:])
        known = found.get((height, width))
        if height > 1 and width > 1 and (known is None or _elements(trace, part) <= _elements(trace, known)):
            found.pop((height, width), None)
            found[height, width] = part
    return found


def _channels_last(steps: Sequence[Step]) -> bool:
    """Whether axes may be in another order behind some steps: no layer of images follows the last change of it."""
    for step in reversed(steps):
        name = operation(step)
        if name in _OF_IMAGES:
            return False
        if name in _REORDERS:
            return True
    return False


def _elements(trace: Trace, part: Part) -> int:
    """Elements of the map that a part reads, for one image."""
    return math.prod(trace.groups.size(dim) for dim in part.given[1:])


def _between_projections(graph: SegmentGraph, own: SegmentGraph, name: str, *, reads_image: bool) -> SegmentGraph:
    """A frozen stage of an expert with the trunk's maps at both ends.

    Maps of equal channels are projected, too: those of two networks mean different things.

    Args:
        graph: the expert's stage.
        own: the trunk's.
        name: of the expert.
        reads_image: whether the stage reads the image, which is not projected.
    """
    (given, made), (theirs, last) = own.shapes(()), graph.shapes(())
    weights = {key: weight.model_copy(update={"frozen": weight.parameter}) for key, weight in graph.weights.items()}
    nodes: list[NodeSpec] = []
    reads, final = "input", graph.nodes[-1].name
    if not reads_image:
        nodes += _projection(f"{_PROJECTION}in", "input", theirs, given[0], weights)
        reads = nodes[-1].name
    nodes += [
        node.model_copy(update={"args": _reading(node.args, reads), "kwargs": _reading(node.kwargs, reads)})
        for node in graph.nodes
    ]
    nodes += _projection(f"{_PROJECTION}out", final, made, last[0], weights)
    fixed = SegmentGraph(input=own.input, nodes=nodes, weights=weights, groups=0, expert=name)
    return SegmentGraph.model_validate(fixed.model_dump())  # copies keep what was computed of the originals


def _projection(
    name: str, reads: str, shape: tuple[int, ...], channels: int, weights: dict[str, WeightSpec]
) -> list[NodeSpec]:
    """A 1x1 convolution without bias, and BN; the weights are added to `weights`.

    Args:
        name: of the convolution, and the beginning of the names of the weights.
        reads: name of the value that it reads.
        shape: of its output, ``(channels, height, width)``.
        channels: of its input.
        weights: of the graph.
    """
    out, one = [[FIXED, shape[0]]], [[FIXED, 1]]
    sizes: list[Size] = [1, *([[FIXED, side]] for side in shape)]
    weights[f"{name}_weight"] = WeightSpec(sizes=[out, [[FIXED, channels]], one, one], parameter=True)
    for what in ("scale", "shift", "mean", "variance"):
        weights[f"{name}_{what}"] = WeightSpec(sizes=[out], parameter=what in ("scale", "shift"))
    norm: list[JsonValue] = [{"weight": f"{name}_{what}"} for what in ("scale", "shift", "mean", "variance")]
    return [
        NodeSpec(name=name, op=_CONV, args=[{"value": reads}, {"weight": f"{name}_weight"}], sizes=sizes),
        NodeSpec(name=f"{name}_norm", op=_NORM, args=[{"value": name}, *norm, _MOMENTUM, _EPS], sizes=sizes),
    ]


def _reading(args: Any, name: str) -> Any:  # noqa: ANN401 (JSON values)
    """Arguments with another name of the segment's input."""
    if isinstance(args, list):
        return [_reading(each, name) for each in args]
    if args == {"value": "input"}:
        return {"value": name}
    return {key: _reading(each, name) for key, each in args.items()} if isinstance(args, dict) else args
