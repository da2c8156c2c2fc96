"""Steps of a trace in a form that segments can be cut from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.tracing.calls import Read
from hwnas.tracing.trace import Step

NORM = "aten._native_batch_norm_legit_no_training.default"


def simplified(steps: Sequence[Step]) -> list[Step]:
    """Steps without the unused outputs of BN, and with each concatenation built on the one before it.

    A dense block concatenates all earlier features for every layer; the first of them are already together.
    """
    renamed: dict[str, str] = {}
    norms = {step.name for step in steps if step.op == NORM}
    joined: dict[tuple[str, ...], Step] = {}
    found: list[Step] = []
    for step in steps:
        args = [_renamed(arg, renamed) for arg in step.args]
        if step.op == "getitem" and args[0].name in norms:
            renamed[step.name] = args[0].name
            continue
        dims = step.dims
        if step.op == NORM:
            assert isinstance(dims, list)
            dims = dims[0]
        if step.op == "aten.cat.default":
            args = _on_earlier(args, joined)
        made = Step(step.name, step.op, args, {k: _renamed(v, renamed) for k, v in step.kwargs.items()}, dims)
        if step.op == "aten.cat.default":
            joined[tuple(read.name for read in _renamed(step.args[0], renamed))] = made
        found.append(made)
    return found


def _on_earlier(args: list[Any], joined: Mapping[tuple[str, ...], Step]) -> list[Any]:
    """A concatenation whose first values were concatenated before, on that result."""
    names = tuple(read.name for read in args[0])
    for count in range(len(names) - 1, 1, -1):
        if (earlier := joined.get(names[:count])) is not None and earlier.args[1:] == args[1:]:
            dims = earlier.dims
            assert isinstance(dims, tuple)
            return [[Read(earlier.name, (), dims), *args[0][count:]], *args[1:]]
    return args


def _renamed(arg: Any, renamed: Mapping[str, str]) -> Any:  # noqa: ANN401 (torch's arguments have any type)
    if isinstance(arg, Read) and not arg.weight:
        return Read(renamed.get(arg.name, arg.name), arg.shape, arg.dims)
    if isinstance(arg, list):
        return [_renamed(each, renamed) for each in arg]
    return arg
