"""A plot: a plotly figure with its text alternative and its data as a table; and common parts of plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from hwnas.report.figures import TargetFigures

if TYPE_CHECKING:
    from hwnas.spaces import Value

# Roles of colours, light and dark. Colours of data are distinguishable with all common forms of colour blindness (after
# Okabe and Ito, "Color Universal Design", 2008), and every series also has its own shape. Figures use light colours;
# the page replaces each by its dark counterpart, so no two roles may share a light colour.
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
    "heat_middle": ("#b5d3ea", "#1d4a6f"),
    "heat_high": ("#6aa5d6", "#256ca5"),
}
FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
COLOURS = {role: light for role, (light, _) in PALETTE.items()}
# Turned labels change the margins, which change the labels: with 2 of 750 plots of random layers, at 326 to 338 pixels,
# plotly gave up ("Too many auto-margin redraws"). With none of 2,000 where labels are not turned.
LOG_AXIS: dict[str, Any] = {"type": "log", "tickangle": 0}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot of the page.

    Attributes:
        name: of its PNG, and its id in the page.
        title: its title.
        summary: its content in words.
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
        roles = {light: role for role, light in COLOURS.items()}
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


# -- texts -----------------------------------------------------------------------------------------------------------


def arch_lines(arch: Mapping[str, Value]) -> list[str]:
    """An arch with one line per kind of variable: ``kernel 3 5 | 7 7 3`` for the stages' blocks."""
    kinds: dict[str, list[tuple[str, Value]]] = {}
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


def arch_text(arch: Mapping[str, Value]) -> str:
    """An arch in one line."""
    return ", ".join(arch_lines(arch))


def short_names(targets: Sequence[TargetFigures]) -> list[str]:
    """The targets' names; for a single device, the names of the recipes only."""
    devices = {target.target.partition("/")[0] for target in targets}
    return [target.target.partition("/")[2] if len(devices) == 1 else target.target for target in targets]


def ms(value: float) -> str:
    """Milliseconds with four significant digits."""
    return f"{value:#.4g}".removesuffix(".") if abs(value) >= 1e-3 else f"{value:.5f}"


def count(number: float) -> str:
    """A number of networks: ``12,345``, or from a million on ``1.65 × 10⁹``."""
    if number < 1e6:
        return f"{number:,.0f}"
    digits, power = f"{number:.2e}".split("e")
    return f"{digits} × 10{str(int(power)).translate(_SUPERSCRIPTS)}"


def percent(share: float) -> str:
    """A share with two decimals."""
    return f"{share:.2%}"


def signed(number: float, decimals: int) -> str:
    """A difference with its sign; the minus is as wide as the plus."""
    return f"{number:+.{decimals}f}".replace("-", "−")


def size_unit(size_bytes: float) -> tuple[str, float]:
    """The unit of a size, and its bytes: kB below a MB."""
    return ("MB", 1e6) if size_bytes >= 1e6 else ("kB", 1e3)


def size(size_bytes: float) -> str:
    """A size with three digits: ``342 kB``, ``12.3 MB``."""
    unit, each = size_unit(size_bytes)
    return f"{size_bytes / each:.{0 if unit == 'kB' else 1}f} {unit}"


# -- what all figures share ------------------------------------------------------------------------------------------


def base_figure(traces: Iterable[go.Scatter | go.Bar | go.Heatmap], *, height: int, x: str, y: str) -> go.Figure:
    """Traces on axes with these titles, with a height in pixels, in the light colours."""
    axis: dict[str, Any] = {
        "gridcolor": COLOURS["rule"],
        "linecolor": COLOURS["rule"],
        "zerolinecolor": COLOURS["rule"],
        "tickfont": {"color": COLOURS["muted"], "size": 12},
        "automargin": True,
    }
    title: dict[str, Any] = {"font": {"color": COLOURS["muted"], "size": 13}, "standoff": 10}
    return go.Figure(
        list(traces),
        {
            "template": "none",
            "height": height,
            "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
            "font": {"family": FONT, "size": 13, "color": COLOURS["ink"]},
            "paper_bgcolor": COLOURS["paper"],
            "plot_bgcolor": COLOURS["paper"],
            "showlegend": False,
            "hovermode": "closest",
            "hoverlabel": {
                "bgcolor": COLOURS["ground"],
                "bordercolor": COLOURS["rule"],
                "align": "left",
                "namelength": -1,
                "font": {"family": FONT, "size": 12, "color": COLOURS["ink"]},
            },
            "xaxis": {**axis, "title": {**title, "text": x}},
            "yaxis": {**axis, "title": {**title, "text": y}},
        },
    )
