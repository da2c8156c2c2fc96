"""From figures to plots: each a plotly figure with its text alternative and its data as a table."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from hwnas.pipeline.figures import Network, RunFigures, TableRow, TargetFigures, Training

# Roles of colours, light and dark. Those of data are apart for all common forms of colour blindness (after Okabe and
# Ito, "Color Universal Design", 2008), and every series has a shape of its own besides. Figures are made of the light
# ones; the page puts each one's dark partner in its place, so no two roles may share a light colour.
PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "ground": ("#f6f7f8", "#0d1013"),
    "ink": ("#1a1f26", "#e7eaee"),
    "muted": ("#59626e", "#9da7b3"),
    "rule": ("#e1e5e9", "#2a313a"),
    "ghost": ("#c5ccd4", "#414b57"),
    "link": ("#0b5cad", "#7cb8f2"),
    "found": ("#d1480b", "#ff8f4d"),
    "model": ("#0072b2", "#58b2ec"),
    "other": ("#7a8590", "#8a95a1"),
    "largest": ("#8b3f8f", "#d79bd9"),
    "baseline": ("#00795a", "#3ccfa2"),
    "band": ("#dcebf5", "#1b3446"),
    "heat_low": ("#eef4f9", "#182530"),
    "heat_middle": ("#7fb0d8", "#2c6c9d"),
    "heat_high": ("#0a4678", "#a9daff"),
}
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_C = {role: light for role, (light, _) in PALETTE.items()}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_CELLS_WITH_TEXT = 12  # columns of a heat map


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot of the page.

    Attributes:
        name: of its PNG, and its id in the page.
        title: what it shows.
        summary: what one sees in it, in words.
        figure: the plot.
        columns, rows: its data as a table.
        note: how to read it; may be empty.
    """

    name: str
    title: str
    summary: str
    figure: go.Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def legend(self) -> list[dict[str, Any]]:
        """Its named traces: index, name, role of the colour, symbol (a marker's, or a line) and dash of a line."""
        roles = {light: role for role, light in _C.items()}
        found = []
        for i, trace in enumerate(self.figure.data):
            if trace.name:
                marker = trace.type == "bar" or "markers" in (trace.mode or "")
                colour = trace.marker.color if marker else (trace.line.color if trace.fill is None else trace.fillcolor)
                symbol = "square" if trace.type == "bar" or trace.fill else "line"
                if trace.type == "scatter" and marker:
                    symbol = trace.marker.symbol or "circle"
                dash = trace.line.dash if symbol == "line" else None
                found.append({"index": i, "name": trace.name, "role": roles[colour], "symbol": symbol, "dash": dash})
        return found


def target_plots(target: TargetFigures, prefix: str = "") -> list[Plot]:
    """The plots of a target.

    Args:
        target: its figures.
        prefix: of the plots' names.
    """
    return [
        _front(target, prefix),
        _validation(target, prefix),
        _errors(target, prefix),
        _slots(target, prefix),
        *_tables(target, prefix),
    ]


def run_plots(run: RunFigures) -> list[Plot]:
    """The plots of what the targets share: side by side where there are several, and the training."""
    found = _side_by_side(run.targets) if len(run.targets) > 1 else []
    return [*found, *([_training(run.training)] if run.training else [])]


# -- texts -----------------------------------------------------------------------------------------------------------


def arch_lines(arch: Mapping[str, int]) -> list[str]:
    """An arch in a line a kind of variable: ``kernel 3 5 | 7 7 3`` for the stages' blocks."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for name, value in arch.items():
        kind, *place = name.split("_")
        while place and not place[0].isdigit():
            kind, place = f"{kind} {place[0]}", place[1:]
        kinds.setdefault(kind, []).append((place[0] if len(place) > 1 else "", value))
    lines = []
    for kind, members in kinds.items():
        text, before = "", members[0][0]
        for stage, value in members:
            text += (" " if stage == before else " | ") + str(value)
            before = stage
        lines.append(f"{kind}{text}")
    return lines


def _arch(arch: Mapping[str, int]) -> str:
    return ", ".join(arch_lines(arch))


def short_names(targets: Sequence[TargetFigures]) -> list[str]:
    """The targets' names; of one device, the recipes' alone."""
    devices = {target.target.partition("/")[0] for target in targets}
    return [target.target.partition("/")[2] if len(devices) == 1 else target.target for target in targets]


def ms(value: float) -> str:
    """Milliseconds with four significant digits."""
    return f"{value:#.4g}" if abs(value) >= 1e-3 else f"{value:.5f}"


def count(number: float) -> str:
    """A number of networks: ``12,345``, or from a million on ``1.65 × 10⁹``."""
    if number < 1e6:
        return f"{number:,.0f}"
    digits, power = f"{number:.2e}".split("e")
    return f"{digits} × 10{str(int(power)).translate(_SUPERSCRIPTS)}"


def percent(share: float) -> str:
    """A share with two decimals."""
    return f"{share:.2%}"


# -- what all figures share ------------------------------------------------------------------------------------------


def _figure(traces: Iterable[go.Scatter | go.Bar | go.Heatmap], *, height: int, x: str, y: str) -> go.Figure:
    axis: dict[str, Any] = {
        "gridcolor": _C["rule"],
        "linecolor": _C["rule"],
        "zerolinecolor": _C["rule"],
        "tickfont": {"color": _C["muted"], "size": 12},
        "automargin": True,
    }
    title: dict[str, Any] = {"font": {"color": _C["muted"], "size": 13}, "standoff": 10}
    return go.Figure(
        list(traces),
        {
            "template": "none",
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "font": {"family": FONT, "size": 13, "color": _C["ink"]},
            "paper_bgcolor": _C["paper"],
            "plot_bgcolor": _C["paper"],
            "showlegend": False,
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": _C["ground"],
                "bordercolor": _C["rule"],
                "align": "left",
                "namelength": -1,
                "font": {"family": FONT, "size": 12, "color": _C["ink"]},
            },
            "xaxis": {**axis, "title": {**title, "text": x}},
            "yaxis": {**axis, "title": {**title, "text": y}},
        },
    )


def _points(
    name: str,
    networks: Sequence[Network],
    role: str,
    symbol: str,
    size: int,
    *,
    evaluated: bool = True,
    **more: object,
) -> go.Scatter:
    accuracies = [n.validation_accuracy if evaluated else n.predicted_accuracy for n in networks]
    return go.Scatter(
        x=[n.predicted_ms for n in networks],
        y=[None if a is None else a * 100 for a in accuracies],
        name=name,
        mode="markers",
        marker={"symbol": symbol, "size": size, "color": _C[role], **more},
        text=["<br>".join(map(html.escape, arch_lines(n.arch))) for n in networks],
        hovertemplate="<b>%{fullData.name}</b><br>%{x:.4f} ms, %{y:.2f}%<br>%{text}<extra></extra>",
    )


# -- the plots -------------------------------------------------------------------------------------------------------


def _front(target: TargetFigures, prefix: str) -> Plot:
    """Accuracy over latency: the front, what was evaluated, and what was found."""
    search = target.search
    found, rest = search.candidates[0], search.candidates[1:]
    best = max(search.random, key=lambda n: n.validation_accuracy or 0.0, default=None)
    line = _points("Pareto front, by the accuracy model", search.front, "model", "circle", 4, evaluated=False)
    line.mode, line.line = "lines", {"color": _C["model"], "width": 2, "shape": "hv"}
    outline: dict[str, Any] = {"line": {"color": _C["paper"], "width": 1}}
    traces = [
        line,
        _points("random, evaluated", search.random, "other", "circle-open", 7),
        _points("candidates, evaluated", rest, "model", "circle", 8, opacity=0.75),
        _points("largest", [search.largest], "largest", "diamond", 12, **outline),
        *([_points("best random", [best], "baseline", "square", 11, **outline)] if best else []),
        _points("found", [found], "found", "star", 17, **outline),
    ]
    figure = _figure(traces, height=460, x="predicted latency (ms)", y="accuracy on validation images (%)")
    figure.add_vline(x=target.limit_ms, line={"color": _C["muted"], "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=target.limit_ms, y=0, yref="paper", text="budget ", xanchor="right", yanchor="bottom",
        showarrow=False, font={"size": 12, "color": _C["muted"]},
    )  # fmt: skip
    gain = ""
    if best and best.validation_accuracy is not None and found.validation_accuracy is not None:
        gain = f", {100 * (found.validation_accuracy - best.validation_accuracy):+.2f} points over the best random one"
    rows = [
        (name, ms(n.predicted_ms), percent(n.predicted_accuracy), _share(n.validation_accuracy), _arch(n.arch))
        for name, networks in (
            ("found", [found]),
            ("candidate", rest),
            ("largest", [search.largest]),
            ("random", search.random),
            ("front", search.front),
        )
        for n in networks
    ]
    how = "exact" if search.front_strategy == "exact" else f"found by {search.front_strategy}"
    return Plot(
        name=f"{prefix}front",
        title="Accuracy and latency",
        summary=(
            f"Found: {ms(found.predicted_ms)} ms predicted, {_share(found.validation_accuracy)} of the validation "
            f"images{gain}. The front ({how}) has {search.front_size:,} networks, from "
            f"{ms(search.front[0].predicted_ms)} to {ms(search.front[-1].predicted_ms)} ms."
        ),
        note=(
            f"The dotted line is the budget of {ms(target.budget_ms)} ms less the margin that keeps a measurement "
            f"within it with {target.confidence:.0%} confidence. Accuracies are of subnets with inherited weights; the "
            f"front's are the accuracy model's. {search.proof}."
        ),
        figure=figure,
        columns=("network", "predicted (ms)", "by the accuracy model", "evaluated", "arch"),
        rows=rows,
    )


def _share(value: float | None) -> str:
    return "not evaluated" if value is None else percent(value)


def _validation(target: TargetFigures, prefix: str) -> Plot:
    """Predicted against measured, with the noise floor as a band around the diagonal."""
    report, networks = target.validation, target.networks
    measured = [sum(n.measured_ms) / 2 for n in networks]
    low = 0.97 * min(*measured, *(n.predicted_ms for n in networks))
    high = 1.03 * max(*measured, *(n.predicted_ms for n in networks))
    floor = report.noise_floor
    text = ["<br>".join(map(html.escape, arch_lines(n.arch))) for n in networks]
    hover = "<b>%{fullData.name}</b><br>%{x:.4f} ms, measured %{y:.4f} ms<br>%{text}<extra></extra>"
    traces = [
        go.Scatter(
            x=[low, high, high, low],
            y=[low * (1 - floor), high * (1 - floor), high * (1 + floor), low * (1 + floor)],
            name="noise floor",
            mode="lines",
            fill="toself",
            fillcolor=_C["band"],
            line={"width": 0, "color": _C["band"]},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[low, high],
            y=[low, high],
            name="equal",
            mode="lines",
            line={"color": _C["muted"], "width": 1},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[n.plain_ms for n in networks],
            y=measured,
            name="plain sum of the table",
            mode="markers",
            marker={"symbol": "x-thin-open", "size": 7, "color": _C["other"], "line": {"width": 1.5}},
            text=text,
            hovertemplate=hover,
        ),
        go.Scatter(
            x=[n.predicted_ms for n in networks],
            y=measured,
            name="latency model",
            mode="markers",
            marker={"symbol": "circle", "size": 7, "color": _C["model"]},
            text=text,
            hovertemplate=hover,
        ),
    ]
    plain = report.baselines.get("plain sum")
    return Plot(
        name=f"{prefix}validation",
        title="Predicted and measured",
        summary=(
            f"On {report.networks} fresh networks the model is off by {percent(report.mape)} on average (MAPE), with a "
            f"noise floor of {percent(floor)} and Kendall τ {report.kendall_tau:.3f}; {report.within_5pct:.0%} lie "
            "within 5%." + (f" The table's plain sum is off by {percent(plain.mape)}." if plain else "")
        ),
        note="Each point is a network, at the mean of its two measurements.",
        figure=_figure(traces, height=400, x="predicted latency (ms)", y="measured latency (ms)"),
        columns=("predicted (ms)", "measured (ms)", "measured again (ms)", "plain sum (ms)", "arch"),
        rows=[(ms(n.predicted_ms), *map(ms, n.measured_ms), ms(n.plain_ms), _arch(n.arch)) for n in networks],
    )


def _errors(target: TargetFigures, prefix: str) -> Plot:
    """The error of each prediction, with the noise floor as a band around none."""
    networks, floor = target.networks, 100 * target.validation.noise_floor
    both = [[100 * (measured / n.predicted_ms - 1) for measured in n.measured_ms] for n in networks]
    middle = [sum(errors) / 2 for errors in both]
    low, high = (pick(n.predicted_ms for n in networks) for pick in (min, max))
    edge = (high - low) / 30
    traces = [
        go.Scatter(
            x=[low - edge, high + edge, high + edge, low - edge],
            y=[-floor, -floor, floor, floor],
            name="noise floor",
            mode="lines",
            fill="toself",
            fillcolor=_C["band"],
            line={"width": 0, "color": _C["band"]},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[n.predicted_ms for n in networks],
            y=middle,
            name="network, measured twice",
            mode="markers",
            marker={"symbol": "circle", "size": 7, "color": _C["model"]},
            error_y={
                "array": [abs(a - b) / 2 for a, b in both],
                "color": _C["model"],
                "thickness": 1.5,
                "width": 0,
            },
            text=["<br>".join(map(html.escape, arch_lines(n.arch))) for n in networks],
            hovertemplate="<b>%{y:+.2f}%</b> at %{x:.4f} ms<br>%{text}<extra></extra>",
        ),
    ]
    figure = _figure(traces, height=400, x="predicted latency (ms)", y="measured over predicted (%)")
    figure.update_layout(yaxis={"ticksuffix": "%", "zeroline": True}, xaxis={"range": [low - edge, high + edge]})
    worst = max((error for errors in both for error in errors), key=abs)
    return Plot(
        name=f"{prefix}errors",
        title="Error of each prediction",
        summary=f"The largest error is {worst:+.1f}%. Two measurements of the same network differ by {floor:.2f}%.",
        note="A bar joins the two measurements of a network. No predictor can be better than the band, on average.",
        figure=figure,
        columns=("predicted (ms)", "error (%)", "again (%)", "arch"),
        rows=[
            (ms(n.predicted_ms), f"{a:+.2f}", f"{b:+.2f}", _arch(n.arch))
            for n, (a, b) in zip(networks, both, strict=True)
        ],
    )


def _slots(target: TargetFigures, prefix: str) -> Plot:
    """Where the milliseconds go: a bar a slot, the largest network's behind."""
    slots = target.slots
    total = sum(s.found_ms for s in slots)
    groups: dict[str, float] = {}
    for s in slots:
        groups[s.group] = groups.get(s.group, 0.0) + s.found_ms
    names = [s.slot for s in slots]

    def bars(name: str, values: list[float], role: str, width: float) -> go.Bar:
        return go.Bar(
            y=names,
            x=values,
            name=name,
            orientation="h",
            width=width,
            marker={"color": _C[role]},
            customdata=[[s.group, html.escape(s.op or "nothing stands here")] for s in slots],
            hovertemplate="<b>%{y}</b> (%{customdata[0]})<br>%{fullData.name}: %{x:.4f} ms<extra></extra>",
        )

    found = bars("found", [s.found_ms for s in slots], "found", 0.42)
    found.hovertemplate = "<b>%{y}</b> (%{customdata[0]})<br>found: %{x:.4f} ms<br>%{customdata[1]}<extra></extra>"
    figure = _figure(
        [bars("largest network", [s.largest_ms for s in slots], "ghost", 0.82), found],
        height=90 + 24 * len(slots),
        x="milliseconds",
        y="",
    )
    figure.update_layout(barmode="overlay", yaxis={"range": [len(slots) - 0.5, -0.5], "showgrid": False})
    for i, (before, after) in enumerate(pairwise(slots)):
        if before.group != after.group:
            figure.add_hline(y=i + 0.5, line={"color": _C["rule"], "width": 1})
    costly = max(groups, key=groups.__getitem__)
    return Plot(
        name=f"{prefix}slots",
        title="Where each millisecond goes",
        summary=(
            f"Of {ms(total)} ms predicted, "
            + ", ".join(f"{group} takes {value / total:.0%}" for group, value in groups.items())
            + f". The most goes to {costly}."
        ),
        note="The slots add up to the prediction. Of those that stand in every network only the sum is known: one of "
        "them may be below 0.",
        figure=figure,
        columns=("slot", "group", "found (ms)", "share", "largest (ms)", "op"),
        rows=[
            (s.slot, s.group, ms(s.found_ms), f"{s.found_ms / total:.1%}", ms(s.largest_ms), s.op or "none")
            for s in slots
        ],
    )


def _tables(target: TargetFigures, prefix: str) -> list[Plot]:
    """The latency table as heat maps: one for the slots that read the same kinds of variables."""
    kinds = Counter(tuple(row.variables) for row in target.table)
    return [
        _heat_map([row for row in target.table if tuple(row.variables) == kind], kind, f"{prefix}table-{i}")
        for i, kind in enumerate(kinds, start=1)
    ]


def _heat_map(rows: list[TableRow], kind: tuple[str, ...], name: str) -> Plot:
    columns = sorted({tuple(choice.values) for row in rows for choice in row.choices})
    labels = ["·".join(map(str, values)) for values in columns]
    cells = [{tuple(c.values): c for c in row.choices} for row in rows]
    micros = [[1e3 * c.latency_ms if (c := row.get(values)) else None for values in columns] for row in cells]
    chosen = [
        (labels[columns.index(v)], row.slot) for row, own in zip(rows, cells, strict=True) for v in own if own[v].chosen
    ]
    digits = ".0f" if max(c.latency_ms for row in rows for c in row.choices) >= 0.02 else ".1f"
    what = " · ".join(kind)
    heat = go.Heatmap(
        x=labels,
        y=[row.slot for row in rows],
        z=micros,
        colorscale=[[0, _C["heat_low"]], [0.5, _C["heat_middle"]], [1, _C["heat_high"]]],
        xgap=2,
        ygap=2,
        showscale=len(columns) > _CELLS_WITH_TEXT,
        texttemplate=f"%{{z:{digits}}}" if len(columns) <= _CELLS_WITH_TEXT else None,
        textfont={"size": 11},
        hoverongaps=False,
        hovertemplate=f"<b>%{{y}}</b><br>{html.escape(what)}: %{{x}}<br>%{{z:.1f}} µs<extra></extra>",
    )
    marks = go.Scatter(
        x=[x for x, _ in chosen],
        y=[y for _, y in chosen],
        name="in the network found",
        mode="markers",
        marker={"symbol": "square-open", "size": 20, "color": _C["found"], "line": {"width": 2.5}},
        hoverinfo="skip",
    )
    figure = _figure([heat, marks], height=90 + 28 * len(rows), x=what, y="")
    figure.update_layout(
        xaxis={
            "type": "category",
            "range": [-0.5, len(columns) - 0.5],
            "showgrid": False,
            "tickangle": 0 if len(columns) <= _CELLS_WITH_TEXT else None,
        },
        yaxis={"range": [len(rows) - 0.5, -0.5], "showgrid": False},
    )
    held = {n: v for row in rows for n, v in row.held.items()}
    times = [c.latency_ms for row in rows for c in row.choices]
    return Plot(
        name=name,
        title=f"The latency table: {' × '.join(kind)} × slot",
        summary=(
            f"Measured alone, these ops take from {1e3 * min(times):.1f} to {1e3 * max(times):.1f} µs"
            + (f", at {', '.join(f'{n} {v}' for n, v in held.items())}" if held else "")
            + "."
        ),
        note="Microseconds (p25) of each op, as the table holds them; the squares are the network found.",
        figure=figure,
        columns=("slot", *kind, "µs", "in the network found"),
        rows=[
            (row.slot, *map(str, c.values), f"{1e3 * c.latency_ms:.2f}", "yes" if c.chosen else "")
            for row in rows
            for c in row.choices
        ],
    )


def _training(training: Training) -> Plot:
    """Losses over steps, with the ends of the phases."""
    looks = {"largest": ("largest", "solid"), "random": ("other", "dot"), "smallest": ("model", "dash")}
    traces = []
    for curve in training.curves:
        subnet = curve.name.removeprefix("loss_")
        role, dash = looks[subnet]
        traces.append(
            go.Scatter(
                x=curve.steps,
                y=curve.values,
                name=f"{subnet} subnet",
                mode="lines",
                line={"color": _C[role], "width": 2, "dash": dash},
                hovertemplate="%{fullData.name}<br>step %{x:.0f}: %{y:.3f}<extra></extra>",
            )
        )
    figure = _figure(traces, height=320, x="step", y="loss")
    for end in list(training.phases.values())[:-1]:
        figure.add_vline(x=end, line={"color": _C["muted"], "width": 1, "dash": "dot"})
    last = {c.name.removeprefix("loss_"): c.values[-1] for c in training.curves}
    return Plot(
        name="training",
        title="Loss of three subnets",
        summary="Loss at the end: "
        + ", ".join(f"{value:.3f} of the {name} subnet" for name, value in last.items())
        + ".",
        note="Means over a few steps each."
        + (" Dotted lines are the ends of phases." if len(training.phases) > 1 else ""),
        figure=figure,
        columns=("step", *(f"{name} subnet" for name in last)),
        rows=[
            (f"{steps[0]:.0f}", *(f"{value:.4f}" for value in values))
            for steps, values in zip(
                zip(*(c.steps for c in training.curves), strict=True),
                zip(*(c.values for c in training.curves), strict=True),
                strict=True,
            )
        ],
    )


def _side_by_side(targets: list[TargetFigures]) -> list[Plot]:
    """Latency, accuracy and size of the networks found for several targets."""
    names = short_names(targets)
    labels = ["<br>".join(html.escape(part) for part in name.split("/")) for name in names]

    def plot(name: str, title: str, unit: str, values: list[float], form: str) -> Plot:
        bars = go.Bar(
            y=labels,
            x=values,
            orientation="h",
            width=0.5,
            marker={"color": _C["found"]},
            texttemplate=f"%{{x:{form}}}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"<b>%{{y}}</b><br>%{{x:{form}}} {unit}<extra></extra>",
        )
        figure = _figure([bars], height=90 + 44 * len(targets), x=unit, y="")
        figure.update_layout(
            xaxis={"range": [0, 1.35 * max(values)], "nticks": 4},
            yaxis={"autorange": "reversed", "showgrid": False},
        )
        shown = [format(value, form) for value in values]
        return Plot(
            name=name,
            title=title,
            summary="; ".join(f"{n}: {v} {unit}" for n, v in zip(names, shown, strict=True)) + ".",
            figure=figure,
            columns=("target", unit),
            rows=[(t.target, v) for t, v in zip(targets, shown, strict=True)],
        )

    return [
        plot("targets-latency", "Measured latency", "ms", [t.measured_ms for t in targets], ".4g"),
        plot("targets-errors", "Errors on the test images", "%", [100 * (1 - t.test_accuracy) for t in targets], ".2f"),
        plot("targets-size", "Size of the program", "MB", [t.size_bytes / 1e6 for t in targets], ".3g"),
    ]
