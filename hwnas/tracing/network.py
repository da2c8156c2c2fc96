"""From a trace to the spec of a network: widths to choose from, and segments."""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import JsonValue

from hwnas.errors import ModelError
from hwnas.spaces.traced import GroupSpec, NetworkSpec, NodeSpec, SegmentGraph, SegmentSpec, WeightSpec
from hwnas.spaces.traced.spec import Size
from hwnas.tracing.calls import Images, Read, Sized
from hwnas.tracing.cuts import Part, parts_of
from hwnas.tracing.dims import FIXED, IMAGES, Dim, Dims
from hwnas.tracing.simplify import simplified
from hwnas.tracing.trace import Step, Trace

# Layers, whose weights belong to one module each.
LAYERS = frozenset(
    f"aten.{name}.default"
    for name in ("conv1d", "conv2d", "linear", "layer_norm", "_native_batch_norm_legit_no_training")
)
SHARES = (0.25, 0.5, 0.75, 1.0)
MULTIPLE = 8  # channels: vector instructions of CPUs work on 8 or 16 numbers at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticOptions:
    """What may be narrower in a traced network.

    Attributes:
        shares: of the units of a group, the choices of its width; the whole is always one.
        multiple: channels, of which a width is a multiple where the units allow it.
        keep: patterns of names of layers that keep their width, such as ``layer4.*``.
        blocks: whether residual blocks can be left out.
        most_ops: largest number of ops of a segment; beyond it, the groups with the fewest MACs lose their choice.
    """

    shares: tuple[float, ...] = SHARES
    multiple: int = MULTIPLE
    keep: tuple[str, ...] = ()
    blocks: bool = True
    most_ops: int = 64


def network_of(trace: Trace, name: str, options: ElasticOptions) -> NetworkSpec:
    """The spec of a traced network.

    Args:
        trace: of the module.
        name: of the network.
        options: what may be narrower.

    Raises:
        ModelError: nothing can be narrower, or a weight belongs to several segments.
    """
    steps = simplified(trace.steps)
    last = {step.name: step for step in steps}[trace.output]
    steps = steps[: steps.index(last) + 1]
    parts = parts_of(steps, blocks=options.blocks)
    _check_weights(steps, parts)
    numbers = _Numbers(trace, steps, parts, options)
    graphs: dict[str, SegmentGraph] = {}
    segments: list[SegmentSpec] = []
    block = 0
    for part in parts:
        written = _Written(trace, steps, part, numbers)
        graphs.setdefault(written.graph.digest, written.graph)
        if part.removable:
            block += 1
        segments.append(
            SegmentSpec(
                name=part.name,
                group=part.group,
                graph=written.graph.digest,
                groups=written.groups,
                weights=written.weights,
                block=block if part.removable else None,
            )
        )
    if not numbers.chosen and not block:
        why = "; ".join(f"{layer}: {reason}" for layer, reason in list(numbers.fixed.items())[:4])
        raise ModelError(f"{name} has nothing to shrink: no layer can be narrower ({why or 'it has no layers'})")
    return NetworkSpec(
        name=name,
        input=list(trace.input),
        classes=trace.classes,
        groups=numbers.chosen,
        fixed=numbers.fixed,
        graphs=graphs,
        segments=segments,
    )


def _check_weights(steps: Sequence[Step], parts: Sequence[Part]) -> None:
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


class _Numbers:
    """The groups with a choice, in the order of execution.

    Attributes:
        chosen: their specs.
        number: group of the trace -> number in `chosen`.
        fixed: layer whose width has no choice -> why.
    """

    def __init__(self, trace: Trace, steps: Sequence[Step], parts: Sequence[Part], options: ElasticOptions) -> None:
        self.groups = trace.groups
        widths: dict[int, int] = {}
        cost: dict[int, float] = {}
        self.layers: dict[int, dict[str, None]] = {}
        for step in steps:
            for read in step.reads:
                if read.weight:
                    self._count(trace, read.name, step, widths, cost)
        choices: dict[int, list[int]] = {}
        self.fixed: dict[str, str] = {}
        for group, width in widths.items():
            known = self.groups.every[group]
            found = _choices(known.units, width, options)
            if not known.made:
                continue
            kept = next(
                (
                    pattern
                    for pattern in options.keep
                    if any(fnmatch.fnmatchcase(layer, pattern) for layer in self.layers.get(group, ()))
                ),
                None,
            )
            if known.frozen is not None:
                self.fixed[_layer(known.name)] = known.frozen
            elif kept is not None:
                self.fixed[_layer(known.name)] = f"kept by {kept}"
            elif len(found) == 1:
                self.fixed[_layer(known.name)] = f"{known.units * width} channels leave no choice"
            else:
                choices[group] = found
        self._limit(trace, steps, parts, choices, cost, options.most_ops)
        self.number = {group: number for number, group in enumerate(choices)}
        self.chosen = [
            GroupSpec(
                name=_layer(self.groups.every[group].name),
                layers=list(self.layers[group]),
                units=self.groups.every[group].units,
                width=widths[group],
                choices=found,
            )
            for group, found in choices.items()
        ]

    def _count(self, trace: Trace, name: str, step: Step, widths: dict[int, int], cost: dict[int, float]) -> None:
        """Channels of a unit, and the size of what a group's units cost, from one weight."""
        weight = trace.weights[name]
        for axis, dim in enumerate(weight.dims):
            for piece in self.groups.found(dim).pieces:
                if piece.group != FIXED:
                    if axis == 0:
                        widths[piece.group] = max(widths.get(piece.group, 1), piece.width)
                        if len(weight.dims) > 1:
                            self.layers.setdefault(piece.group, {})[_layer(name)] = None
                    else:
                        widths.setdefault(piece.group, 1)
                    area = 1
                    if isinstance(step.dims, tuple):
                        for other in step.dims[2:]:
                            area *= self.groups.size(other)
                    share = self.groups.elements(piece) / self.groups.size(dim)
                    cost[piece.group] = cost.get(piece.group, 0.0) + share * weight.tensor.numel() * area

    def _limit(
        self,
        trace: Trace,
        steps: Sequence[Step],
        parts: Sequence[Part],
        choices: dict[int, list[int]],
        cost: Mapping[int, float],
        most: int,
    ) -> None:
        """Take choices from the groups that matter least where a segment would have too many ops.

        A group that many segments read multiplies the ops of each: what counts is its cost for each of them.
        """
        of_parts = [_groups_of(trace, steps, part) for part in parts]
        readers = Counter(group for read in of_parts for group in read)
        for part, all_read in zip(parts, of_parts, strict=True):
            read = [group for group in all_read if group in choices]
            while True:
                ops = 1
                for group in read:
                    ops *= len(choices[group])
                if ops <= most:
                    break
                least = min(read, key=lambda group: cost.get(group, 0.0) / readers[group])
                read.remove(least)
                del choices[least]
                self.fixed[_layer(self.groups.every[least].name)] = (
                    f"segment {part.name} would have {ops} ops; at most {most} are measured"
                )


def _groups_of(trace: Trace, steps: Sequence[Step], part: Part) -> list[int]:
    """Groups that size anything in a segment."""
    found: dict[int, None] = {}

    def add(dims: Dims) -> None:
        for dim in dims:
            for piece in trace.groups.found(dim).pieces:
                if piece.group != FIXED:
                    found[piece.group] = None

    for step in steps[part.first : part.end]:
        for dims in step.dims if isinstance(step.dims, list) else [step.dims]:
            add(dims)
        for read in step.reads:
            add(trace.weights[read.name].dims if read.weight else read.dims)
    return list(found)


def _layer(weight: str) -> str:
    """Name of the layer of a weight."""
    return weight.rpartition(".")[0] or weight


def _choices(units: int, width: int, options: ElasticOptions) -> list[int]:
    """Numbers of units to choose from."""
    step = max(1, -(-options.multiple // width))
    found = {units}
    for share in options.shares:
        count = max(step, round(share * units / step) * step)
        if count < units:
            found.add(count)
    return sorted(found)


class _Written:
    """A segment with names and groups of its own.

    Attributes:
        graph: its operations.
        groups: number in the network of each of its groups.
        weights: name in the graph -> name in the network.
    """

    def __init__(self, trace: Trace, steps: Sequence[Step], part: Part, numbers: _Numbers) -> None:
        self.trace, self.numbers = trace, numbers
        self.groups: list[int] = []
        self.weights: dict[str, str] = {}
        self.local: dict[str, str] = {part.reads: "input"}
        given = self._sizes(part.given)[1:]
        nodes = [self._node(step) for step in steps[part.first : part.end]]
        specs = {
            local: WeightSpec(
                sizes=self._sizes(trace.weights[name].dims),
                parameter=trace.weights[name].parameter,
                dtype=str(trace.weights[name].tensor.dtype).removeprefix("torch."),
            )
            for local, name in self.weights.items()
        }
        self.graph = SegmentGraph(input=given, nodes=nodes, weights=specs, groups=len(self.groups))

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
