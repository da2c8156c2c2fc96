"""Latency of the ways in which tokens read each other, over the length of a sequence."""

from __future__ import annotations

from collections.abc import Mapping

from hwnas.latency import LatencyTable
from hwnas.report.token_figures import LengthCurve
from hwnas.spaces import Space, Value
from hwnas.spaces.inputs import LENGTH


def length_curves(table: LatencyTable, space: Space, found: Mapping[str, Value]) -> list[LengthCurve]:
    """For each choice of a mixer, the time of its op over the lengths of the space.

    It is read off the first slot that reads the length and a variable whose values are texts; all other variables have
    the values of the result, or their largest ones where its network lacks the slot. Empty for a space of one length,
    of images, or without such a slot.

    Args:
        table: has every op of the space.
        space: the space.
        found: the result.
    """
    if space.vocabulary is None or len(space.choices[LENGTH]) < 2:
        return []
    for slot in space.slots:
        chosen = [name for name in slot.variables if name.startswith("mixer")]
        if not chosen or LENGTH not in slot.variables:
            continue
        held = dict(found if slot.op(*(found[name] for name in slot.variables)) else space.largest)
        curves = []
        for mixer in space.choices[chosen[0]]:
            lengths = [int(length) for length in space.choices[LENGTH]]
            ops = [slot.op(*({**held, LENGTH: n, chosen[0]: mixer}[v] for v in slot.variables)) for n in lengths]
            times = [table.latency_ms(op) for op in ops if op is not None]
            curves.append(LengthCurve(mixer=str(mixer), lengths=lengths, latency_ms=times))
        return curves
    return []
