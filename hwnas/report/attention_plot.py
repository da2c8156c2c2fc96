"""What the heads of the deployed network read in some examples."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from hwnas.report.plots import COLOURS, Plot, base_figure, percent
from hwnas.report.token_figures import AttentionMap

_ROW = 22  # pixels
_NAMED = 48  # most columns whose names fit below the map
_MOST_READ = 3  # tokens that the table names


def attention_plots(maps: list[AttentionMap], prefix: str) -> list[Plot]:
    """A heat map of heads over tokens for each example; empty without maps."""
    return [_plot(one, f"{prefix}attention-{number}") for number, one in enumerate(maps, start=1)]


def _plot(one: AttentionMap, name: str) -> Plot:
    heads = [f"attention {row.layer}, head {row.head}" for row in one.rows]
    texts = [html.escape(text) for text in one.columns]
    places = list(range(1, len(texts) * one.tokens + 1, one.tokens))
    largest = max(max(row.shares) for row in one.rows)
    heat = go.Heatmap(
        x=places,
        y=heads,
        z=[[100 * share for share in row.shares] for row in one.rows],
        customdata=[texts for _ in heads],
        zmin=0,
        zmax=100 * largest,
        colorscale=[[0, COLOURS["heat_low"]], [0.5, COLOURS["heat_middle"]], [1, COLOURS["heat_high"]]],
        xgap=0 if len(texts) > _NAMED else 1,
        ygap=1,
        showscale=False,
        hovertemplate="%{y}<br>token %{x}: %{customdata}<br>%{z:.2f}%<extra></extra>",
    )
    figure = base_figure([heat], height=110 + _ROW * len(heads), x="tokens", y="")
    figure.update_layout(yaxis={"type": "category", "range": [len(heads) - 0.5, -0.5], "showgrid": False})
    figure.update_layout(xaxis={"showgrid": False})
    if len(texts) <= _NAMED:
        figure.update_layout(xaxis={"tickvals": places, "ticktext": texts, "tickangle": 0})
    several = f" A column is {one.tokens} tokens." if one.tokens > 1 else ""
    return Plot(
        name=name,
        title=f"What the heads read: a test example of class {one.label}",
        summary=f"{len(heads)} heads over {len(texts)} {'tokens' if one.tokens == 1 else 'groups of tokens'}.",
        note=f"Share of a token in what all tokens read, i.e. the mean over the queries; padding is left out.{several}",
        figure=figure,
        columns=("head", *(f"{i}. most read" for i in range(1, _MOST_READ + 1))),
        rows=[(head, *_most_read(row.shares, one.columns, places)) for head, row in zip(heads, one.rows, strict=True)],
    )


def _most_read(shares: list[float], texts: list[str], places: list[int]) -> list[str]:
    """The tokens with the largest shares, in words; empty texts behind the last one."""
    order = sorted(range(len(shares)), key=lambda i: -shares[i])[:_MOST_READ]
    found = [f"{texts[i]} (token {places[i]}): {percent(shares[i])}" for i in order]
    return found + [""] * (_MOST_READ - len(found))
