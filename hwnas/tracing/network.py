"""From a trace to the spec of a network: widths to choose from, and segments."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from pydantic import JsonValue

from hwnas.errors import ModelError
from hwnas.spaces.traced import NetworkSpec, NodeSpec, RankSpec, SegmentGraph, SegmentSpec, WeightSpec
from hwnas.spaces.traced.spec import Size
from hwnas.tracing.calls import Images, Read, Sized
from hwnas.tracing.choices import Choices, ElasticOptions
from hwnas.tracing.cuts import Part, parts_of
from hwnas.tracing.dims import FIXED, IMAGES, Dim, Dims
from hwnas.tracing.simplify import simplified
from hwnas.tracing.trace import Step, Trace

_MOST_NETWORKS = 20_000  # of a stage; exact search enumerates them for each assignment of what stages share
# Layers, whose weights belong to one module each.
LAYERS = frozenset(
    f"aten.{name}.default"
    for name in ("conv1d", "conv2d", "linear", "layer_norm", "_native_batch_norm_legit_no_training")
)


def network_of(trace: Trace, name: str, options: ElasticOptions, smaller: Sequence[Trace] = ()) -> NetworkSpec:
    """The spec of a traced network.

    Args:
        trace: of the module.
        name: of the network.
        options: what may be narrower.
        smaller: traces with smaller images, ascending.

    Raises:
        ModelError: nothing can be narrower, a weight belongs to several segments, or the operations are others for
            smaller images.
    """
    steps = until_output(trace)
    parts = parts_of(steps, blocks=options.blocks)
    check_weights(steps, parts)
    numbers = Choices(trace, steps, parts, options)
    if not numbers.chosen and not any(part.removable for part in parts) and not smaller:
        why = "; ".join(f"{layer}: {reason}" for layer, reason in list(numbers.fixed.items())[:4])
        raise ModelError(f"{name} has nothing to shrink: no layer can be narrower ({why or 'it has no layers'})")
    written = [Written(trace, steps, part, numbers) for part in parts]
    for_smaller = [_for_smaller(each, written, parts, numbers, name) for each in smaller]
    graphs: dict[str, SegmentGraph] = {}
    for one in (*written, *(graph for sized in for_smaller for graph in sized)):
        graphs.setdefault(one.graph.digest, one.graph)
    blocks = accumulate(part.removable for part in parts)
    stages = _stages(parts, [one.groups for one in written], [len(group.choices) for group in numbers.chosen])
    return NetworkSpec(
        name=name,
        input=list(trace.input),
        classes=trace.classes,
        groups=numbers.chosen,
        fixed=numbers.fixed,
        graphs=graphs,
        segments=[
            SegmentSpec(
                name=part.name,
                group=stage,
                graph=one.graph.digest,
                groups=one.groups,
                weights=one.weights,
                block=block if part.removable else None,
                smaller=[sized[place].graph.digest for sized in for_smaller],
            )
            for place, (part, one, block, stage) in enumerate(zip(parts, written, blocks, stages, strict=True))
        ],
        smaller=[each.input[1] for each in smaller],
    )


def _stages(parts: Sequence[Part], read: Sequence[Sequence[int]], choices: Sequence[int]) -> list[str]:
    """The stage of each segment: by name, but small enough to enumerate its networks.

    The accuracy model couples all variables of a stage. Many networks number their blocks through, such as
    ``features.17``: as one stage, no exact search could decompose them.
    """
    found: list[str] = []
    name, known, used = "", set[int | str](), Counter[str]()
    for part, groups in zip(parts, read, strict=True):
        own: set[int | str] = {*groups, *([part.name] if part.removable else [])}
        size = math.prod(2 if isinstance(each, str) else choices[each] for each in known | own)
        if part.group != name or size > _MOST_NETWORKS:
            name, known = part.group, set()
            used[name] += 1
        known |= own
        found.append(name if used[name] == 1 else f"{name}-{used[name]}")
    return found


def until_output(trace: Trace) -> list[Step]:
    """The steps of a trace, simplified, up to the one that makes the output."""
    steps = simplified(trace.steps)
    last = {step.name: step for step in steps}[trace.output]
    return steps[: steps.index(last) + 1]


def _for_smaller(
    trace: Trace, largest: Sequence[Written], parts: Sequence[Part], numbers: Choices, name: str
) -> list[Written]:
    """The segments for smaller images, with the choices of the largest ones.

    Raises:
        ModelError: their operations are others.
    """
    steps = until_output(trace)
    same = [group.name for group in trace.groups.every] == [group.name for group in numbers.groups.every]
    found = parts_of(steps, blocks=any(part.removable for part in parts))
    same = same and [(p.first, p.end, p.removable) for p in found] == [(p.first, p.end, p.removable) for p in parts]
    written = [Written(trace, steps, part, numbers) for part in found] if same else []
    if not same or any(
        not one.graph.is_like(two.graph) or (one.groups, one.weights) != (two.groups, two.weights)
        for one, two in zip(largest, written, strict=True)
    ):
        raise ModelError(
            f"the operations of {name} are others for images of {trace.input[1]} x {trace.input[2]} pixels: leave this "
            "size out"
        )
    return written


def check_weights(steps: Sequence[Step], parts: Sequence[Part]) -> None:
    """Check that each weight belongs to one segment, and to one layer.

    Raises:
        ModelError: two share one.
    """
    owner: dict[str, str] = {}
    layers: dict[str, str] = {}
    for part in parts:
        for step in steps[part.first : part.end]:
            for read in step.reads:
                if read.weight and step.op in LAYERS and layers.setdefault(read.name, step.name) != step.name:
                    raise ModelError(
                        f"the weight {read.name} is used by {layers[read.name]} and by {step.name}; layers cannot "
                        "share weights"
                    )
                if read.weight and owner.setdefault(read.name, part.name) != part.name:
                    raise ModelError(
                        f"the weight {read.name} is used in {owner[read.name]} and in {part.name}; segments cannot "
                        "share weights"
                    )


class Written:
    """A segment with names and groups of its own.

    Attributes:
        graph: its operations.
        groups: number in the network of each of its groups.
        weights: name in the graph -> name in the network.
    """

    def __init__(self, trace: Trace, steps: Sequence[Step], part: Part, numbers: Choices) -> None:
        self.trace, self.numbers = trace, numbers
        self.groups: list[int] = []
        self.weights: dict[str, str] = {}
        self.local: dict[str, str] = {part.reads: "input"}
        given = self._sizes(part.given)[1:]
        nodes = [self._node(step) for step in steps[part.first : part.end]]
        ranks = {self.local[name]: rank for name, rank in self._ranks(steps[part.first : part.end]).items()}
        specs = {
            local: WeightSpec(
                sizes=self._sizes(trace.weights[name].dims),
                parameter=trace.weights[name].parameter,
                dtype=str(trace.weights[name].tensor.dtype).removeprefix("torch."),
            )
            for local, name in self.weights.items()
        }
        for rank in ranks.values():
            whole = specs[rank.whole]
            thin: Size = [[rank.group, 1]]
            specs[rank.down] = whole.model_copy(update={"sizes": [thin, *whole.sizes[1:]]})
            specs[rank.up] = whole.model_copy(update={"sizes": [whole.sizes[0], thin, *whole.sizes[2:]]})
            name = self.weights[rank.whole]
            self.weights |= {rank.down: f"{name}.down", rank.up: f"{name}.up"}
        self.graph = SegmentGraph(input=given, nodes=nodes, weights=specs, groups=len(self.groups), ranks=ranks)

    def _ranks(self, steps: Sequence[Step]) -> dict[str, RankSpec]:
        """Name of a step -> its rank."""
        found = {}
        for step in steps:
            number = self.numbers.number.get(self.numbers.ranks.get(step.name, FIXED))
            if number is None:
                continue
            self.groups.append(number)
            whole = str(self._read(step.args[1])["weight"])
            found[step.name] = RankSpec(
                group=len(self.groups) - 1,
                full=self.numbers.chosen[number].units,
                whole=whole,
                down=f"{whole}_down",
                up=f"{whole}_up",
            )
        return found

    def _node(self, step: Step) -> NodeSpec:
        args = [self._arg(arg, step) for arg in step.args]
        kwargs = {name: self._arg(arg, step) for name, arg in step.kwargs.items()}
        self.local[step.name] = f"v{len(self.local)}"
        return NodeSpec(
            name=self.local[step.name],
            op=step.op,
            args=args,
            kwargs={name: value for name, value in kwargs.items() if value is not None},
            sizes=None if isinstance(step.dims, list) else self._sizes(step.dims),
        )

    def _sizes(self, dims: Dims) -> list[Size]:
        return [self._size(dim) for dim in dims]

    def _size(self, dim: Dim) -> Size:
        if dim.batch:
            return self.trace.groups.size(dim) // IMAGES
        pieces: list[list[int]] = []
        for piece in self.trace.groups.found(dim).pieces:
            number = self.numbers.number.get(piece.group)
            if number is None:  # elements that do not change
                fixed = self.trace.groups.elements(piece)
                if pieces and pieces[-1][0] == FIXED:
                    pieces[-1][1] += fixed
                else:
                    pieces.append([FIXED, fixed])
            else:
                if number not in self.groups:
                    self.groups.append(number)
                pieces.append([self.groups.index(number), piece.width])
        return pieces

    def _arg(self, arg: Any, step: Step) -> JsonValue:  # noqa: ANN401 (torch's arguments have any type)
        found: JsonValue = None  # devices and layouts are left out
        match arg:
            case Read():
                found = self._read(arg)
            case Sized():
                sizes = self._sizes(arg.dims)
                found = {"size": sizes[0]} if arg.single else {"sizes": sizes}  # type: ignore[dict-item]
            case list():
                found = [self._arg(each, step) for each in arg]
            case Images() if step.op == "aten.expand.default":
                found = {"images": True}
            case torch.dtype():
                found = {"dtype": str(arg).removeprefix("torch.")}
            case torch.memory_format():
                found = {"format": str(arg).removeprefix("torch.")}
            case float() if not math.isfinite(arg):
                found = {"number": str(arg)}
            case None | bool() | int() | float() | str():
                found = arg
            case torch.device() | torch.layout():
                pass
            case _:
                raise ModelError(f"node {step.name} ({step.op}) has an argument of the type {type(arg).__name__}")
        return found

    def _read(self, read: Read) -> dict[str, JsonValue]:
        if not read.weight:
            return {"value": self.local[read.name]}
        if read.name not in self.weights.values():
            self.weights[f"w{len(self.weights)}"] = read.name
        return {"weight": next(local for local, name in self.weights.items() if name == read.name)}


def space_name(text: str) -> str:
    """A name that a space can have: lower case letters, digits, ``_``, ``.`` and ``-``."""
    found = re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")
    return found or "network"
