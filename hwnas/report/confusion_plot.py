"""The confusion matrix of a target's deployed network."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from hwnas.report.plots import COLOURS, Plot, base_figure, percent
from hwnas.tasks.figures import ClassificationFigures

_ROW = 30  # pixels


def confusion_plot(figures: ClassificationFigures | None, prefix: str) -> list[Plot]:
    """Images by label and predicted class; empty without figures, or with more classes than a matrix is kept for."""
    if figures is None or figures.confusion is None:
        return []
    counts, names = figures.confusion, [one.name for one in figures.classes]
    shares = [[100 * n / sum(row) if sum(row) else None for n in row] for row in counts]
    shown = [html.escape(name) for name in names]
    heat = go.Heatmap(
        x=shown,
        y=shown,
        z=shares,
        zmin=0,
        zmax=100,
        colorscale=[[0, COLOURS["heat_low"]], [0.5, COLOURS["heat_middle"]], [1, COLOURS["heat_high"]]],
        xgap=2,
        ygap=2,
        showscale=False,
        text=counts,
        texttemplate="%{text}",
        textfont={"size": 11, "color": COLOURS["ink"]},
        hoverongaps=False,
        hovertemplate="label %{y}<br>predicted %{x}<br>%{text} images, %{z:.1f}% of the label<extra></extra>",
    )
    figure = base_figure([heat], height=110 + _ROW * len(names), x="predicted class", y="label")
    figure.update_layout(
        xaxis={"type": "category", "showgrid": False},
        yaxis={"type": "category", "range": [len(names) - 0.5, -0.5], "showgrid": False},
    )
    return [
        Plot(
            name=f"{prefix}confusion",
            title="Labels and predicted classes",
            summary=f"The deployed network on the test images: {figures.words}.",
            note="Numbers of images; colours are shares of a label's images.",
            figure=figure,
            columns=("label", "images", "recall", "precision", *(f"as {name}" for name in names)),
            rows=[
                (one.name, str(one.images), _share(one.recall), _share(one.precision), *map(str, row))
                for one, row in zip(figures.classes, counts, strict=True)
            ],
        )
    ]


def _share(value: float | None) -> str:
    return "undefined" if value is None else percent(value)
