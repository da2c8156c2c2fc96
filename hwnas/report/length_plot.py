"""The latency of each mixer over the length of a sequence."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from hwnas.report.plots import COLOURS, LOG_AXIS, Plot, base_figure
from hwnas.report.token_figures import LengthCurve

_LOOKS = (
    ("found", "circle", "solid"),
    ("model", "square", "dash"),
    ("baseline", "diamond", "dot"),
    ("largest", "triangle-up", "dashdot"),
    ("other", "cross", "longdash"),
    ("muted", "x", "longdashdot"),
    ("ink", "star", "solid"),
)


def length_plot(curves: list[LengthCurve], prefix: str) -> list[Plot]:
    """Time in the table over the length; empty without curves."""
    if not curves:
        return []
    traces = []
    for curve, (role, symbol, dash) in zip(curves, _LOOKS * len(curves), strict=False):
        traces.append(
            go.Scatter(
                x=curve.lengths,
                y=[1e3 * ms for ms in curve.latency_ms],
                name=html.escape(curve.mixer),
                mode="lines+markers",
                line={"color": COLOURS[role], "width": 2, "dash": dash},
                marker={"color": COLOURS[role], "symbol": symbol, "size": 8},
                hovertemplate="<b>%{fullData.name}</b><br>%{x} tokens: %{y:.1f} µs<extra></extra>",
            )
        )
    figure = base_figure(traces, height=340, x="tokens", y="µs")
    figure.update_layout(xaxis={**LOG_AXIS, "tickvals": curves[0].lengths}, yaxis=LOG_AXIS)
    fastest = [
        (length, min(curves, key=lambda curve: curve.latency_ms[i]).mixer) for i, length in enumerate(curves[0].lengths)
    ]
    return [
        Plot(
            name=f"{prefix}lengths",
            title="Latency of the mixers over the length",
            summary="The fastest: " + "; ".join(f"{mixer} at {length} tokens" for length, mixer in fastest) + ".",
            note="One layer's mixer, measured alone; all else as in the network found. Both axes are logarithmic.",
            figure=figure,
            columns=("mixer", *(f"{length} tokens (µs)" for length in curves[0].lengths)),
            rows=[(curve.mixer, *(f"{1e3 * ms:.2f}" for ms in curve.latency_ms)) for curve in curves],
        )
    ]
