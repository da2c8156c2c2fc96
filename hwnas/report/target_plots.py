"""The plots of one target."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go

from hwnas.report.attention_plot import attention_plots
from hwnas.report.confusion_plot import confusion_plot
from hwnas.report.figures import Network, RunFigures, SlotCost, TableRow, TargetFigures
from hwnas.report.length_plot import length_plot
from hwnas.report.plots import COLOURS, Plot, arch_lines, arch_text, base_figure, ms, percent, signed

_CELLS_WITH_TEXT = 12  # largest number of columns of a heat map with text


def target_plots(run: RunFigures) -> list[list[Plot]]:
    """The plots of each target of a run; with several targets, their names start with the target's number."""
    several = len(run.targets) > 1
    found = []
    for i, target in enumerate(run.targets, start=1):
        prefix = f"{i}-" if several else ""
        first = [draw(target, prefix) for draw in (_front, _validation, _errors, _slots)]
        more = (
            *confusion_plot(target.classification, prefix),
            *length_plot(target.lengths, prefix),
            *attention_plots(target.attention, prefix),
        )
        found.append([*first, *more, *_tables(target, prefix)])
    return found


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
        marker={"symbol": symbol, "size": size, "color": COLOURS[role], **more},
        text=["<br>".join(map(html.escape, arch_lines(n.arch))) for n in networks],
        hovertemplate="<b>%{fullData.name}</b><br>%{x:.4f} ms, %{y:.2f}%<br>%{text}<extra></extra>",
    )


def _front(target: TargetFigures, prefix: str) -> Plot:
    """Accuracy over latency: the front, the evaluated networks, and the result."""
    search = target.search
    found, rest = search.candidates[0], search.candidates[1:]
    best = max(search.random, key=lambda n: n.validation_accuracy or 0.0, default=None)
    line = _points("Pareto front, by the accuracy model", search.front, "model", "circle", 4, evaluated=False)
    line.mode, line.line = "lines", {"color": COLOURS["model"], "width": 2, "shape": "hv"}
    outline: dict[str, Any] = {"line": {"color": COLOURS["paper"], "width": 1}}
    traces = [
        line,
        _points("random, evaluated", search.random, "other", "circle-open", 7),
        _points("candidates, evaluated", rest, "model", "circle", 8, opacity=0.75),
        _points("largest", [search.largest], "largest", "diamond", 12, **outline),
        *([_points("best random", [best], "baseline", "square", 11, **outline)] if best else []),
        _points("found", [found], "found", "star", 17, **outline),
    ]
    axis = f"{html.escape(target.metric)} on validation images (%)"
    figure = base_figure(traces, height=460, x="predicted latency (ms)", y=axis)
    figure.add_vline(x=target.limit_ms, line={"color": COLOURS["muted"], "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=target.limit_ms, y=0, yref="paper", text="budget less margin ", xanchor="right", yanchor="bottom",
        showarrow=False, font={"size": 12, "color": COLOURS["muted"]},
    )  # fmt: skip
    gain = ""
    if best and best.validation_accuracy is not None and found.validation_accuracy is not None:
        points = 100 * (found.validation_accuracy - best.validation_accuracy)
        gain = f", {signed(points, 2)} points over the best random one"
    rows = [
        (name, ms(n.predicted_ms), percent(n.predicted_accuracy), _share(n.validation_accuracy), arch_text(n.arch))
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
    of = "of" if target.metric == "accuracy" else f"{target.metric} on"
    return Plot(
        name=f"{prefix}front",
        title="Accuracy and latency",
        summary=(
            f"Found: {ms(found.predicted_ms)} ms predicted, {_share(found.validation_accuracy)} {of} the validation "
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
        _noise_floor(
            [low, high, high, low],
            [low * (1 - floor), high * (1 - floor), high * (1 + floor), low * (1 + floor)],
        ),
        go.Scatter(
            x=[low, high],
            y=[low, high],
            name="measured = predicted",
            mode="lines",
            line={"color": COLOURS["muted"], "width": 1},
            hoverinfo="skip",
        ),
        go.Scatter(
            x=[n.plain_ms for n in networks],
            y=measured,
            name="plain sum of the table",
            mode="markers",
            marker={"symbol": "x-thin-open", "size": 7, "color": COLOURS["other"], "line": {"width": 1.5}},
            text=text,
            hovertemplate=hover,
        ),
        go.Scatter(
            x=[n.predicted_ms for n in networks],
            y=measured,
            name="latency model",
            mode="markers",
            marker={"symbol": "circle", "size": 7, "color": COLOURS["model"]},
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
        figure=base_figure(traces, height=400, x="predicted latency (ms)", y="measured latency (ms)"),
        columns=("predicted (ms)", "measured (ms)", "measured again (ms)", "plain sum (ms)", "arch"),
        rows=[(ms(n.predicted_ms), *map(ms, n.measured_ms), ms(n.plain_ms), arch_text(n.arch)) for n in networks],
    )


def _noise_floor(x: list[float], y: list[float]) -> go.Scatter:
    """The noise floor as a band with these corners."""
    return go.Scatter(
        x=x,
        y=y,
        name="noise floor",
        mode="lines",
        fill="toself",
        fillcolor=COLOURS["band"],
        line={"width": 0, "color": COLOURS["band"]},
        hoverinfo="skip",
    )


def _errors(target: TargetFigures, prefix: str) -> Plot:
    """The error of each prediction, with the noise floor as a band around 0."""
    networks, floor = target.networks, 100 * target.validation.noise_floor
    both = [[100 * (measured / n.predicted_ms - 1) for measured in n.measured_ms] for n in networks]
    middle = [sum(errors) / 2 for errors in both]
    low, high = (pick(n.predicted_ms for n in networks) for pick in (min, max))
    edge = (high - low) / 30
    traces = [
        _noise_floor([low - edge, high + edge, high + edge, low - edge], [-floor, -floor, floor, floor]),
        go.Scatter(
            x=[n.predicted_ms for n in networks],
            y=middle,
            name="network, measured twice",
            mode="markers",
            marker={"symbol": "circle", "size": 7, "color": COLOURS["model"]},
            error_y={
                "array": [abs(a - b) / 2 for a, b in both],
                "color": COLOURS["model"],
                "thickness": 1.5,
                "width": 0,
            },
            text=["<br>".join(map(html.escape, arch_lines(n.arch))) for n in networks],
            hovertemplate="<b>%{y:+.2f}%</b> at %{x:.4f} ms<br>%{text}<extra></extra>",
        ),
    ]
    figure = base_figure(traces, height=400, x="predicted latency (ms)", y="measured over predicted (%)")
    figure.update_layout(yaxis={"ticksuffix": "%", "zeroline": True}, xaxis={"range": [low - edge, high + edge]})
    worst = max((error for errors in both for error in errors), key=abs)
    return Plot(
        name=f"{prefix}errors",
        title="Error of each prediction",
        summary=f"The largest error is {signed(worst, 1)}%. "
        f"Two measurements of the same network differ by {floor:.2f}%.",
        note="A bar joins the two measurements of a network. No predictor can be better than the band, on average.",
        figure=figure,
        columns=("predicted (ms)", "error (%)", "again (%)", "arch"),
        rows=[
            (ms(n.predicted_ms), f"{a:+.2f}", f"{b:+.2f}", arch_text(n.arch))
            for n, (a, b) in zip(networks, both, strict=True)
        ],
    )


def merged_slots(slots: Sequence[SlotCost]) -> tuple[list[SlotCost], list[str]]:
    """Slots whose costs are not negative: if one is, those that the fit cannot distinguish become one.

    These are the negative ones and those with the same op in every network: constants that add up to 0 could be added
    to them without a change of any prediction. If their sum is still negative, the cheapest other slots join.

    Returns:
        The slots, with the merged one last; and the names of its parts, none if no cost is negative.
    """
    if min(min(s.found_ms, s.largest_ms) for s in slots) >= 0:
        return list(slots), []
    names = {s.slot for s in slots if s.fixed or min(s.found_ms, s.largest_ms) < 0}
    rest = sorted((s for s in slots if s.slot not in names), key=lambda s: s.largest_ms, reverse=True)
    while rest and min(_total(slots, names)) < 0:
        names.add(rest.pop().slot)
    parts = [s for s in slots if s.slot in names]
    found_ms, largest_ms = _total(slots, names)
    group = " + ".join(dict.fromkeys(s.group for s in parts))
    ops = ", ".join(s.op for s in parts if s.op) or None
    together = SlotCost(slot="merged", group=group, op=ops, found_ms=found_ms, largest_ms=largest_ms)
    return [*(s for s in slots if s.slot not in names), together], [s.slot for s in parts]


def _total(slots: Sequence[SlotCost], names: Collection[str]) -> tuple[float, float]:
    """The milliseconds of some slots together, in the result and in the largest network."""
    return sum(s.found_ms for s in slots if s.slot in names), sum(s.largest_ms for s in slots if s.slot in names)


def _slots(target: TargetFigures, prefix: str) -> Plot:
    """Where the milliseconds go: one bar per slot, with the largest network's bar behind it."""
    slots, merged = merged_slots(target.slots)
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
            marker={"color": COLOURS[role]},
            customdata=[[s.group, html.escape(s.op or "empty")] for s in slots],
            hovertemplate="<b>%{y}</b> (%{customdata[0]})<br>%{fullData.name}: %{x:.4f} ms<extra></extra>",
        )

    found = bars("found", [s.found_ms for s in slots], "found", 0.42)
    found.hovertemplate = "<b>%{y}</b> (%{customdata[0]})<br>found: %{x:.4f} ms<br>%{customdata[1]}<extra></extra>"
    figure = base_figure(
        [bars("largest network", [s.largest_ms for s in slots], "ghost", 0.82), found],
        height=90 + 24 * len(slots),
        x="milliseconds",
        y="",
    )
    figure.update_layout(barmode="overlay", yaxis={"range": [len(slots) - 0.5, -0.5], "showgrid": False})
    for i, (before, after) in enumerate(pairwise(slots)):
        if before.group != after.group:
            figure.add_hline(y=i + 0.5, line={"color": COLOURS["rule"], "width": 1})
    costly = max(groups, key=groups.__getitem__)
    return Plot(
        name=f"{prefix}slots",
        title="Where each millisecond goes",
        summary=(
            f"Of {ms(total)} ms predicted, "
            + ", ".join(f"{group} takes {value / total:.0%}" for group, value in groups.items())
            + f". The most goes to {costly}."
        ),
        note="The bars add up to the prediction."
        + (f" The fit cannot distinguish {', '.join(merged)}, so the bar merged has their sum." if merged else ""),
        figure=figure,
        columns=("slot", "group", "found (ms)", "share", "largest (ms)", "op"),
        rows=[
            (s.slot, s.group, ms(s.found_ms), f"{s.found_ms / total:.1%}", ms(s.largest_ms), s.op or "none")
            for s in slots
        ],
    )


def _tables(target: TargetFigures, prefix: str) -> list[Plot]:
    """The latency table as heat maps: one for the slots that read the same kinds of variables."""
    rows = [row for row in target.table if row.choices]  # older runs also kept slots without ops
    kinds = Counter(tuple(row.variables) for row in rows)
    return [
        _heat_map([row for row in rows if tuple(row.variables) == kind], kind, f"{prefix}table-{i}")
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
    # Two digits distinguish the cells, and fit on a phone; hover texts and the table have more.
    text = [["" if us is None else f"{us:.{0 if us >= 9.95 else 1}f}" for us in row] for row in micros]
    what = " · ".join(kind)
    heat = go.Heatmap(
        x=labels,
        y=[row.slot for row in rows],
        z=micros,
        colorscale=[[0, COLOURS["heat_low"]], [0.5, COLOURS["heat_middle"]], [1, COLOURS["heat_high"]]],
        xgap=2,
        ygap=2,
        showscale=len(columns) > _CELLS_WITH_TEXT,
        text=text,
        texttemplate="%{text}" if len(columns) <= _CELLS_WITH_TEXT else None,
        textfont={"size": 11, "color": COLOURS["ink"]},
        hoverongaps=False,
        hovertemplate=f"<b>%{{y}}</b><br>{html.escape(what)}: %{{x}}<br>%{{z:.1f}} µs<extra></extra>",
    )
    marks = go.Scatter(
        x=[x for x, _ in chosen],
        y=[y for _, y in chosen],
        name="in the network found",
        mode="markers",
        cliponaxis=False,
        # No wider than a column, to leave adjacent columns visible.
        marker={
            "symbol": "square-open",
            "size": max(6, min(20, 400 // len(columns))),
            "color": COLOURS["found"],
            "line": {"width": 2.5 if len(columns) <= _CELLS_WITH_TEXT else 1.5},
        },
        hoverinfo="skip",
    )
    figure = base_figure([heat, marks], height=90 + 28 * len(rows), x=what, y="")
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
        note="Microseconds (p25) of each op, rounded; the squares are the network found. A gap costs nothing.",
        figure=figure,
        columns=("slot", *kind, "µs", "in the network found"),
        rows=[
            (row.slot, *map(str, c.values), f"{1e3 * c.latency_ms:.2f}", "yes" if c.chosen else "")
            for row in rows
            for c in row.choices
        ],
    )
