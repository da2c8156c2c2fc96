"""The plots of a user's model."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from hwnas.deploy.model_bench import LayerTime, ModelTiming, Roofline
from hwnas.report.model_figures import ModelFigures, ModelTarget, Prediction
from hwnas.report.plots import COLOURS, LOG_AXIS, Plot, base_figure, ms, percent, signed, size

_LAYERS = 24  # bars of a plot of layers
_KINDS = 3  # named in the summary
_LONGEST = 40  # characters of a layer's name on an axis


def short_targets(targets: Sequence[ModelTarget]) -> list[str]:
    """The names of targets; for a single device, those of the recipes only."""
    devices = {one.target.partition("/")[0] for one in targets}
    return [one.target.partition("/")[2] if len(devices) == 1 else one.target for one in targets]


def recipes_plot(figures: ModelFigures) -> Plot:
    """Latencies of all targets, measured and predicted."""
    names = short_targets(figures.targets)
    order = sorted(range(len(names)), key=lambda i: figures.targets[i].ms)
    targets, names = [figures.targets[i] for i in order], [names[i] for i in order]
    timings = [one.timing for one in targets]
    measured = go.Bar(
        y=names,
        x=[one and one.measured_ms for one in timings],
        name="measured (p25)",
        orientation="h",
        width=0.5,
        marker={"color": COLOURS["model"]},
        hovertemplate="%{y}<br>p25 %{x:.4f} ms<extra></extra>",
    )
    traces: list[go.Bar | go.Scatter] = [measured]
    for name, values, role, symbol in (
        ("measured p90", [one and one.p90_ms for one in timings], "other", "circle"),
        ("predicted", [one.prediction and one.prediction.predicted_ms for one in targets], "found", "diamond"),
    ):
        if any(values):
            traces.append(
                go.Scatter(
                    y=names,
                    x=values,
                    name=name,
                    mode="markers",
                    marker={"symbol": symbol, "size": 11, "color": COLOURS[role]},
                    hovertemplate="%{y}<br>%{fullData.name} %{x:.4f} ms<extra></extra>",
                )
            )
    figure = base_figure(traces, height=110 + 34 * len(names), x="milliseconds", y="")
    figure.update_layout(
        yaxis={"type": "category", "range": [len(names) - 0.5, -0.5], "showgrid": False}, xaxis={"rangemode": "tozero"}
    )
    fastest, slowest = targets[0], targets[-1]
    return Plot(
        name="recipes",
        title="Latency by target",
        summary=f"{names[0]} is the fastest, with {ms(fastest.ms)} ms; {names[-1]} takes {ms(slowest.ms)} ms.",
        figure=figure,
        columns=("target", "p25 (ms)", "p90", "predicted", "difference", "size", "fp32 differs by at most", ""),
        rows=[_row(name, one) for name, one in zip(names, targets, strict=True)],
    )


def _row(name: str, one: ModelTarget) -> tuple[str, ...]:
    timing, prediction, close = one.timing, one.prediction, one.closeness
    worst = max((each.max_abs_error for each in close.parity.outputs), default=0.0) if close else None
    return (
        name,
        "" if timing is None else ms(timing.measured_ms),
        "" if timing is None else ms(timing.p90_ms),
        "" if prediction is None else ms(prediction.predicted_ms),
        "" if one.error is None else f"{signed(100 * one.error, 1)}%",
        "" if timing is None else size(timing.size_bytes),
        "" if worst is None else f"{worst:.2g}",
        "refused" if close and close.refused else "",
    )


def target_plots(figures: ModelFigures) -> list[list[Plot]]:
    """The plots of each target; with several targets, their names start with the target's number."""
    several = len(figures.targets) > 1
    found = []
    for i, target in enumerate(figures.targets, start=1):
        prefix, own = f"{i}-" if several else "", list[Plot]()
        if target.timing is not None and target.timing.layers:
            own.append(_layers(target.timing, prefix))
            if any(layer.macs and layer.bytes for layer in target.timing.layers):
                own.append(_roofline(target.timing, prefix))
            if target.prediction is not None:
                own.append(_beside(target.timing, target.prediction, prefix))
        elif target.prediction is not None:
            own.append(_kernels(target.prediction, prefix))
        found.append(own)
    return found


def _short(name: str) -> str:
    """A name that is not too long for an axis; its end distinguishes it."""
    return html.escape(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}")


def _bars(
    entries: Sequence[tuple[str, str, float, str]], total_ms: float, rest: Sequence[tuple[str, float]], role: str
) -> go.Figure:
    """Horizontal bars of the slowest entries ``(name, kind, ms, detail)``, and of the rest ``(name, ms)``."""
    labels = [f"{i + 1}. {_short(name)}" for i, (name, *_) in enumerate(entries)] + [name for name, _ in rest]
    bar = go.Bar(
        y=labels,
        x=[one[2] for one in entries] + [value for _, value in rest],
        orientation="h",
        width=0.7,
        marker={"color": [COLOURS[role]] * len(entries) + [COLOURS["ghost"]] * len(rest)},
        text=[f"{html.escape(kind)}<br>{html.escape(detail)}" for _, kind, _, detail in entries] + [""] * len(rest),
        textposition="none",
        hovertemplate="<b>%{y}</b><br>%{x:.4f} ms<br>%{text}<extra></extra>",
    )
    figure = base_figure([bar], height=90 + 24 * len(labels), x="milliseconds", y="")
    figure.update_layout(yaxis={"type": "category", "range": [len(labels) - 0.5, -0.5], "showgrid": False})
    return figure


def _by_kind(entries: Sequence[tuple[str, float]], total_ms: float) -> str:
    """The kinds that take most, in words."""
    kinds: dict[str, float] = {}
    for kind, value in entries:
        kinds[kind] = kinds.get(kind, 0.0) + value
    most = sorted(kinds.items(), key=lambda one: -one[1])
    named = ", ".join(f"{kind} takes {value / total_ms:.0%}" for kind, value in most[:_KINDS])
    rest = len(most) - _KINDS
    return named + (f", {rest} other kind{'s' * (rest != 1)} the rest" if rest > 0 else "")


def _layers(timing: ModelTiming, prefix: str) -> Plot:
    """Where the milliseconds go: one bar per layer, the slowest first."""
    shown, others = timing.layers[:_LAYERS], timing.layers[_LAYERS:]
    rest = [(f"{len(others)} others", sum(one.ms for one in others))] if others else []
    rest.append(("between layers", timing.between_ms or 0.0))
    figure = _bars([(one.name, one.kind, one.ms, _cost(one)) for one in shown], timing.measured_ms, rest, "found")
    return Plot(
        name=f"{prefix}layers",
        title="Where each millisecond goes",
        summary=(
            f"Of {ms(timing.measured_ms)} ms, "
            + _by_kind([(one.kind, one.ms) for one in timing.layers], timing.measured_ms)
            + "."
        ),
        note=(
            "Median times of the runtime's profiler"
            + (
                f", without the {timing.profiler_ms * 1e3:.1f} µs that it adds to each layer"
                if timing.profiler_ms
                else ""
            )
            + "; with what is between the layers, they add up to the measured latency."
        ),
        figure=figure,
        columns=("layer", "kind", "ms", "share", "GMAC/s", "of the roofline", "MACs", "bytes", "detail"),
        rows=[_layer_row(one, timing.roofline) for one in timing.layers],
    )


def _layer_row(one: LayerTime, roofline: Roofline | None) -> tuple[str, ...]:
    reached = roofline.reached(one) if roofline else None
    return (
        one.name,
        one.kind,
        f"{one.ms:.4f}",
        f"{one.share:.1%}",
        "" if not one.macs else f"{one.macs / one.ms / 1e6:.1f}",
        "" if reached is None else f"{reached:.0%}",
        "" if one.macs is None else f"{one.macs:,}",
        "" if one.bytes is None else f"{one.bytes:,}",
        one.detail,
    )


def _cost(one: LayerTime) -> str:
    parts = [f"{one.macs / 1e6:.3g} million MACs" if one.macs else "", size(one.bytes) if one.bytes else ""]
    return ", ".join(part for part in parts if part)


def _roofline(timing: ModelTiming, prefix: str) -> Plot:
    """Multiply-accumulates per second over those per byte, and the roofline of the target."""
    layers = [(one, one.macs, one.bytes) for one in timing.layers if one.macs and one.bytes]
    intensity = [macs / moved for _, macs, moved in layers]
    rates = [macs / one.ms / 1e6 for one, macs, _ in layers]
    longest = max(one.ms for one, *_ in layers)
    points = go.Scatter(
        x=intensity,
        y=rates,
        name="layers; the area is the time",
        mode="markers",
        marker={
            "symbol": "circle",
            "size": [5 + 21 * math.sqrt(one.ms / longest) for one, *_ in layers],
            "color": COLOURS["found"],
            "opacity": 0.7,
            "line": {"width": 1, "color": COLOURS["paper"]},
        },
        text=[f"{html.escape(one.name)} ({html.escape(one.kind)})<br>{one.ms:.4f} ms" for one, *_ in layers],
        hovertemplate="<b>%{text}</b><br>%{y:.1f} GMAC/s at %{x:.2f} MACs per byte<extra></extra>",
    )
    traces, peaks = [points], timing.roofline
    if peaks is not None:
        ridge = peaks.gmacs_per_s / peaks.gb_per_s
        ends = sorted({min(*intensity, ridge) / 2, ridge, max(*intensity, ridge) * 2})
        traces.insert(
            0,
            go.Scatter(
                x=ends,
                y=[min(peaks.gmacs_per_s, x * peaks.gb_per_s) for x in ends],
                name="roofline of the device",
                mode="lines",
                line={"color": COLOURS["model"], "width": 2, "dash": "solid"},
                hovertemplate="%{y:.1f} GMAC/s at %{x:.2f} MACs per byte<extra></extra>",
            ),
        )
    figure = base_figure(traces, height=420, x="MACs per byte", y="GMAC/s")
    figure.update_layout(xaxis=LOG_AXIS, yaxis=LOG_AXIS)
    whole = sum(macs for _, macs, _ in layers)
    said = (
        f"{whole / 1e6:,.4g} million MACs in {ms(timing.measured_ms)} ms: {whole / timing.measured_ms / 1e6:.1f} GMAC/s"
    )
    if peaks is not None:
        said += f", {whole / timing.measured_ms / 1e6 / peaks.gmacs_per_s:.0%} of the peak"
    return Plot(
        name=f"{prefix}roofline",
        title="Layers and the roofline",
        summary=f"{said}.",
        note=(
            "The roofline (Williams et al. 2009) is of fp32 and the memory; layers whose bytes come from a cache may "
            "be above its slope."
            if peaks is not None
            else "The device's peaks are not known for this recipe: hwnas devices detect --measure-peaks --save."
        ),
        figure=figure,
        columns=("layer", "kind", "MACs per byte", "GMAC/s", "ms"),
        rows=[
            (one.name, one.kind, f"{x:.2f}", f"{rate:.1f}", f"{one.ms:.4f}")
            for (one, *_), x, rate in zip(layers, intensity, rates, strict=True)
        ],
    )


def _beside(timing: ModelTiming, prediction: Prediction, prefix: str) -> Plot:
    """Predicted over measured time of each layer."""
    known = {one.name: one for one in timing.layers}
    pairs = [(one, known[one.name]) for one in prediction.kernels if one.name in known]
    looks = {"measured": ("baseline", "circle"), "estimated": ("found", "diamond"), "unknown": ("largest", "square")}
    ends = [f(one.ms for pair in pairs for one in pair) for f in (min, max)] if pairs else [1e-3, 1.0]
    traces = [
        go.Scatter(
            x=ends,
            y=ends,
            name="equal",
            mode="lines",
            line={"color": COLOURS["other"], "width": 1, "dash": "dash"},
            hoverinfo="skip",
        )
    ]
    for how, (role, symbol) in looks.items():
        own = [(guess, real) for guess, real in pairs if guess.how == how]
        if own:
            traces.append(
                go.Scatter(
                    x=[guess.ms for guess, _ in own],
                    y=[real.ms for _, real in own],
                    name=f"{how} in the table" if how == "measured" else how,
                    mode="markers",
                    marker={"symbol": symbol, "size": 9, "color": COLOURS[role]},
                    text=[f"{html.escape(guess.name)}<br>{html.escape(guess.kernel)}" for guess, _ in own],
                    hovertemplate="<b>%{text}</b><br>predicted %{x:.4f}, measured %{y:.4f} ms<extra></extra>",
                )
            )
    figure = base_figure(traces, height=420, x="predicted (ms)", y="measured (ms)")
    figure.update_layout(xaxis=LOG_AXIS, yaxis=LOG_AXIS)
    error = timing.measured_ms / prediction.predicted_ms - 1
    return Plot(
        name=f"{prefix}predicted",
        title="Prediction beside measurement",
        summary=(
            f"Predicted {ms(prediction.predicted_ms)} ms, measured {ms(timing.measured_ms)} ms "
            f"({signed(100 * error, 1)}%); {len(pairs)} of {len(prediction.kernels)} layers have both."
        ),
        note="Each point is a layer.",
        figure=figure,
        columns=("layer", "kernel", "", "predicted (ms)", "measured (ms)", "difference"),
        rows=[
            (
                guess.name,
                guess.kernel,
                guess.how,
                f"{guess.ms:.4f}",
                f"{real.ms:.4f}",
                f"{signed(100 * (real.ms / guess.ms - 1), 0)}%",
            )
            for guess, real in sorted(pairs, key=lambda pair: -pair[1].ms)
        ],
    )


def _kernels(prediction: Prediction, prefix: str) -> Plot:
    """Predicted milliseconds: one bar per kernel, the slowest first."""
    kernels = sorted(prediction.kernels, key=lambda one: -one.ms)
    shown, others = kernels[:_LAYERS], kernels[_LAYERS:]
    rest = [(f"{len(others)} others", sum(one.ms for one in others))] if others else []
    rest.append(("between kernels", prediction.between_ms))
    entries = [(one.name, one.how, one.ms, one.kernel) for one in shown]
    return Plot(
        name=f"{prefix}kernels",
        title="Where each millisecond goes, predicted",
        summary=(
            f"Of {ms(prediction.predicted_ms)} ms, "
            + _by_kind([(one.kernel.partition(" ")[0], one.ms) for one in kernels], prediction.predicted_ms)
            + "."
        ),
        note="Predicted from a table of kernels; nothing was run.",
        figure=_bars(entries, prediction.predicted_ms, rest, "model"),
        columns=("layer", "kernel", "", "ms", "share"),
        rows=[(one.name, one.kernel, one.how, f"{one.ms:.4f}", percent(one.share)) for one in kernels],
    )
