"""Latency of mixers over the length: figures from a table, and their plot."""

from __future__ import annotations

import pytest

from hwnas.latency.table import LatencyTable
from hwnas.pipeline.mixers import length_curves
from hwnas.report.length_plot import length_plot
from hwnas.report.token_figures import LengthCurve
from hwnas.spaces import Op, make_space


class Table(LatencyTable):
    """A millisecond for each million MACs."""

    def __init__(self) -> None:
        pass

    def latency_ms(self, op: Op) -> float:
        return op.macs / 1e6


def test_curves_are_the_times_of_the_ops_of_a_layer() -> None:
    space = make_space("sequence", options={"length": [64, 256]})
    found = space.arch({**space.largest, "width": 64, "mixer_1": "conv"})
    curves = length_curves(Table(), space, found)
    assert [curve.mixer for curve in curves] == list(space.choices["mixer_1"])
    assert all(curve.lengths == [64, 256] for curve in curves)
    own = {curve.mixer: curve.latency_ms for curve in curves}
    assert own["conv"] == [length * 64 * (3 + 64) / 1e6 for length in (64, 256)]
    # Attention grows with the square of the length, windows do not.
    assert own["attention"][1] / own["attention"][0] > 5
    assert own["window"][1] / own["window"][0] == pytest.approx(4)
    [plot] = length_plot(curves, "")
    assert plot.name == "lengths"
    assert plot.summary == "The fastest: conv at 64 tokens; conv at 256 tokens."
    assert len(plot.rows) == len(plot.figure.data) == 7
    looks = {(trace.line.color, trace.line.dash, trace.marker.symbol) for trace in plot.figure.data}
    assert len(looks) == 7


@pytest.mark.parametrize("name", ["sequence", "vit-tiny"])
def test_there_are_none_for_one_length_or_for_images(name: str) -> None:
    space = make_space(name)
    assert length_curves(Table(), space, space.largest) == []
    assert length_plot([], "") == []


def test_a_time_for_each_length() -> None:
    with pytest.raises(ValueError, match="has 2 lengths and 1 times"):
        LengthCurve(mixer="conv", lengths=[1, 2], latency_ms=[0.5])
