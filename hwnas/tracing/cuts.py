"""Segments of a trace: the operations between two values through which everything flows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hwnas.nn.blocks import module_name
from hwnas.tracing.calls import Read
from hwnas.tracing.dims import Dims
from hwnas.tracing.trace import Step

# A segment starts where work does: cutting between a convolution and its BN would hide that runtimes fuse them.
_NORM = "_native_batch_norm_legit_no_training"
_STARTS = ("conv1d", "conv2d", "linear", "layer_norm", "adaptive_avg_pool2d", "mean", _NORM)
_ADD, _RELU = "aten.add.Tensor", "aten.relu.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A segment.

    Attributes:
        name, group: of its slot.
        first, end: range of its steps.
        reads: name of the value that it reads.
        given: dimensions of that value.
        removable: whether it is a residual block that may be left out.
    """

    name: str
    group: str
    first: int
    end: int
    reads: str
    given: Dims
    removable: bool


def parts_of(steps: Sequence[Step], *, blocks: bool) -> list[Part]:
    """The segments of a trace.

    Args:
        steps: of the trace, up to the output.
        blocks: whether residual blocks are removable.
    """
    cuts = [0, *_cuts(steps), len(steps)]
    first = _input(steps)
    parts: list[Part] = []
    used: dict[str, int] = {}
    for begin, end in pairwise(cuts):
        reads, given = (first.name, first.dims) if begin == 0 else _made(steps[begin - 1])
        name = _unique(_place(steps[begin:end]) or f"part{len(parts) + 1}", used)
        parts.append(
            Part(
                name=name,
                group=_stage(name),
                first=begin,
                end=end,
                reads=reads,
                given=given,
                removable=blocks and begin > 0 and _removable(steps, begin, end, reads),
            )
        )
    return parts


def _made(step: Step) -> tuple[str, Dims]:
    assert isinstance(step.dims, tuple)
    return step.name, step.dims


def _values(step: Step) -> list[Read]:
    """The values that a step reads."""
    return [read for read in step.reads if not read.weight]


def _input(steps: Sequence[Step]) -> Read:
    """The image, the only value that no step makes."""
    made = {step.name for step in steps}
    return next(read for step in steps for read in _values(step) if read.name not in made)


def _cuts(steps: Sequence[Step]) -> list[int]:
    """Places where one value is all that the rest reads, and new work starts."""
    last: dict[str, int] = {}
    for i, step in enumerate(steps):
        for read in _values(step):
            last[read.name] = i
    alive: set[str] = {_input(steps).name}
    found = []
    for i, step in enumerate(steps[:-1]):
        alive.add(step.name)
        alive = {name for name in alive if last.get(name, -1) > i}
        next_step = steps[i + 1]
        starts = operation(next_step) in _STARTS
        alone = alive == {step.name} and isinstance(step.dims, tuple) and step.dims[0].batch
        norm = operation(next_step) == _NORM and operation(step).startswith("conv")
        if alone and starts and not norm:
            found.append(i + 1)
    return found


def operation(step: Step) -> str:
    """Name of a step's operator without its namespace and overload."""
    return step.op.split(".")[1] if "." in step.op else step.op


def _removable(steps: Sequence[Step], begin: int, end: int, reads: str) -> bool:
    """Whether a segment adds something to what it reads, with at most a ReLU after it, as before."""
    tail = list(range(begin, end))
    while tail and steps[tail[-1]].op in (_RELU, "aten.clone.default", "aten.alias.default"):
        tail.pop()
    if not tail or steps[tail[-1]].op != _ADD:
        return False
    rectified = any(steps[i].op == _RELU for i in range(tail[-1] + 1, end))
    if rectified and steps[begin - 1].op != _RELU:
        return False  # without the block, values below 0 would pass
    last = steps[tail[-1]]
    shapes = [read.shape for read in _values(last)]
    if len(shapes) != 2 or shapes[0] != shapes[1] or last.kwargs:
        return False  # it is broadcast, or scaled
    added = [read.name for read in _values(last)]
    through = {reads}
    for i in range(begin, end):  # copies of what is read
        if steps[i].op in ("aten.clone.default", "aten.alias.default") and _values(steps[i])[0].name in through:
            through.add(steps[i].name)
    return sum(name in through for name in added) == 1


def _place(steps: Sequence[Step]) -> str:
    """The common part of the names of a segment's weights."""
    names = [arg.name.split(".")[:-1] for step in steps for arg in step.args if isinstance(arg, Read) and arg.weight]
    if not names:
        return ""
    common = names[0]
    for name in names[1:]:
        same = 0
        while same < min(len(common), len(name)) and common[same] == name[same]:
            same += 1
        common = common[:same]
    return ".".join(common or names[0])


def _stage(name: str) -> str:
    """The name without a number at its end: ``layer1.0`` and ``layer1.0.part2`` belong to ``layer1``."""
    stage, _, last = re.sub(r"(\.part\d+)+$", "", name).rpartition(".")
    return stage if stage and last.isdigit() else name


def _unique(name: str, used: dict[str, int]) -> str:
    """A name that no other slot has, also where dots and underscores are the same, as in names of modules."""
    key = module_name(name)
    used[key] = used.get(key, 0) + 1
    return name if used[key] == 1 else _unique(f"{name}.part{used[key]}", used)
