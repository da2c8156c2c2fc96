"""What can be chosen in a traced network: widths, and ranks of layers."""

from __future__ import annotations

import fnmatch
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hwnas.spaces.traced import GroupSpec
from hwnas.tracing.calls import Read
from hwnas.tracing.cuts import Part
from hwnas.tracing.dims import FIXED, Dims
from hwnas.tracing.trace import Step, Trace

LINEAR, CONVOLUTION = "aten.linear.default", "aten.conv2d.default"
SHARES = (0.25, 0.5, 0.75, 1.0)
_MOST_INPUTS = 8192  # of a layer with a rank: the second moments of its inputs take 8 bytes times their square
MULTIPLE = 8  # channels: vector instructions of CPUs work on 8 or 16 numbers at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticOptions:
    """What may be narrower in a traced network.

    Attributes:
        shares: of the units of a group, the choices of its width; the whole is always one.
        multiple: channels, of which a width is a multiple where the units allow it.
        keep: patterns of names of layers that keep their width, such as ``layer4.*``.
        blocks: whether residual blocks can be left out.
        ranks: of linear layers and 1x1 convolutions, as shares of the smaller dimension, besides the whole layer.
        most_ops: largest number of ops of a segment; beyond it, the groups with the fewest MACs lose their choice.
    """

    shares: tuple[float, ...] = SHARES
    multiple: int = MULTIPLE
    keep: tuple[str, ...] = ()
    blocks: bool = True
    ranks: tuple[float, ...] = ()
    most_ops: int = 64


class Choices:
    """The groups with a choice, in the order of execution.

    Attributes:
        chosen: their specs.
        number: group of the trace, or of a rank -> number in `chosen`.
        ranks: name of a step -> group of its rank.
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
                self.fixed[layer_of(known.name)] = known.frozen
            elif kept is not None:
                self.fixed[layer_of(known.name)] = f"kept by {kept}"
            elif len(found) == 1:
                self.fixed[layer_of(known.name)] = f"{known.units * width} channels leave no choice"
            else:
                choices[group] = found
        self.names = {group: layer_of(self.groups.every[group].name) for group in choices}
        self.ranks: dict[str, int] = {}
        for step, layer, found in ranks_of(trace, steps, options) if options.ranks else ():
            group = self.ranks[step.name] = len(self.groups.every) + len(self.ranks)
            choices[group], self.names[group] = found, layer
            self.layers[group] = {layer: None}
            cost[group] = float(trace.weights[step.reads[1].name].tensor.numel() * self._area(step))
        self._limit(trace, steps, parts, choices, cost, options.most_ops)
        self.number = {group: number for number, group in enumerate(choices)}
        thin = set(self.ranks.values())
        self.chosen = [
            GroupSpec(
                name=self.names[group],
                layers=list(self.layers[group]),
                units=found[-1],
                width=widths.get(group, 1),
                choices=found,
                rank=group in thin,
            )
            for group, found in choices.items()
        ]

    def _area(self, step: Step) -> int:
        """Positions of an image in the output of a step."""
        return math.prod(map(self.groups.size, step.dims[2:])) if isinstance(step.dims, tuple) else 1

    def _count(self, trace: Trace, name: str, step: Step, widths: dict[int, int], cost: dict[int, float]) -> None:
        """Channels of a unit, and the size of what a group's units cost, from one weight."""
        weight, area = trace.weights[name], self._area(step)
        for axis, dim in enumerate(weight.dims):
            for piece in self.groups.found(dim).pieces:
                if piece.group != FIXED:
                    if axis == 0:
                        widths[piece.group] = max(widths.get(piece.group, 1), piece.width)
                        if len(weight.dims) > 1:
                            self.layers.setdefault(piece.group, {})[layer_of(name)] = None
                    else:
                        widths.setdefault(piece.group, 1)
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
        for part, groups in zip(parts, of_parts, strict=True):
            groups += [self.ranks[step.name] for step in steps[part.first : part.end] if step.name in self.ranks]
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
                what = "rank" if least in self.ranks.values() else "width"
                self.fixed.setdefault(
                    self.names[least],
                    f"its {what} has no choice, since segment {part.name} would have {ops} ops; at most {most} are "
                    "measured",
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


def ranks_of(trace: Trace, steps: Sequence[Step], options: ElasticOptions) -> Iterator[tuple[Step, str, list[int]]]:
    """Linear layers and 1x1 convolutions that two thinner ones can replace.

    Yields:
        the step, the name of the layer, and the ranks to choose from; the last one stands for the layer itself.
    """
    for step in steps:
        weight = step.args[1] if len(step.args) > 1 else None
        if step.op not in (LINEAR, CONVOLUTION) or not (isinstance(weight, Read) and weight.weight):
            continue
        padding, dilation, parts = (step.args[i] if len(step.args) > i else 0 for i in (4, 5, 6))
        pointwise = all(side == 1 for side in weight.shape[2:]) and not any(_numbers(padding)) and parts in (0, 1)
        if not pointwise or any(number > 1 for number in _numbers(dilation)):
            continue
        layer, out, into = layer_of(weight.name), *weight.shape[:2]
        assert isinstance(step.dims, tuple)
        made = trace.groups.found(step.dims[-1 if step.op == LINEAR else 1]).pieces[0].group
        if into > _MOST_INPUTS or (made != FIXED and trace.groups.every[made].frozen == "the output"):
            continue  # the last layer changes with the classes
        least = min(out, into)
        counts = {
            max(options.multiple, round(share * least / options.multiple) * options.multiple) for share in options.ranks
        }
        found = sorted(rank for rank in counts if rank < least and rank * (out + into) < out * into)
        if found and not any(fnmatch.fnmatchcase(layer, pattern) for pattern in options.keep):
            yield step, layer, [*found, least]


def _numbers(arg: object) -> list[int]:
    """One number, or several."""
    return [arg] if isinstance(arg, int) else list(arg) if isinstance(arg, list | tuple) else [1]


def layer_of(weight: str) -> str:
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
