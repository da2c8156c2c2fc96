"""The plots that are common to the targets of a run."""

from __future__ import annotations

import html

import plotly.graph_objects as go

from hwnas.report.figures import Loss, RunFigures, TargetFigures, Training
from hwnas.report.plots import COLOURS, Plot, base_figure, short_names, size_unit


def run_plots(run: RunFigures) -> list[Plot]:
    """The common plots: a comparison of several targets, and the training."""
    found = _side_by_side(run.targets) if len(run.targets) > 1 else []
    return [*found, *([_training(run.training)] if run.training else [])]


def _training(training: Training) -> Plot:
    """Losses over steps, with the ends of the phases."""
    looks: dict[Loss, tuple[str, str]] = {
        "loss_largest": ("largest", "solid"),
        "loss_random": ("other", "dot"),
        "loss_smallest": ("model", "dash"),
    }
    traces = []
    for curve in training.curves:
        subnet = curve.name.removeprefix("loss_")
        role, dash = looks[curve.name]
        traces.append(
            go.Scatter(
                x=curve.steps,
                y=curve.values,
                name=f"{subnet} subnet",
                mode="lines",
                line={"color": COLOURS[role], "width": 2, "dash": dash},
                hovertemplate="%{fullData.name}<br>step %{x:.0f}: %{y:.3f}<extra></extra>",
            )
        )
    figure = base_figure(traces, height=320, x="step", y="loss")
    for end in list(training.phases.values())[:-1]:
        figure.add_vline(x=end, line={"color": COLOURS["muted"], "width": 1, "dash": "dot"})
    averaged = len(training.curves[0].steps) < max(training.phases.values())
    last = {c.name.removeprefix("loss_"): [v for v in c.values if v is not None][-1] for c in training.curves}
    return Plot(
        name="training",
        title="Loss of three subnets",
        summary="Loss at the end: "
        + ", ".join(f"{value:.3f} of the {name} subnet" for name, value in last.items())
        + ".",
        note=" ".join(
            (["Means over a few steps each."] if averaged else [])
            + (["Dotted lines are the ends of phases."] if len(training.phases) > 1 else [])
        ),
        figure=figure,
        columns=("step", *(f"{name} subnet" for name in last)),
        rows=[
            (f"{step:.0f}", *("not trained" if value is None else f"{value:.4f}" for value in values))
            for step, *values in zip(training.curves[0].steps, *(c.values for c in training.curves), strict=True)
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
            marker={"color": COLOURS["found"]},
            texttemplate=f"%{{x:{form}}}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"<b>%{{y}}</b><br>%{{x:{form}}} {unit}<extra></extra>",
        )
        figure = base_figure([bars], height=90 + 44 * len(targets), x=unit, y="")
        figure.update_layout(
            xaxis={"range": [0, 1.7 * max(values)], "nticks": 4},
            yaxis={"autorange": "reversed", "showgrid": False},
        )
        shown = [format(value, f"#{form}").removesuffix(".") for value in values]
        return Plot(
            name=name,
            title=title,
            summary="; ".join(f"{n}: {v}{'' if unit == '%' else ' '}{unit}" for n, v in zip(names, shown, strict=True))
            + ".",
            figure=figure,
            columns=("target", unit),
            rows=[(t.target, v) for t, v in zip(targets, shown, strict=True)],
        )

    unit, each = size_unit(max(t.size_bytes for t in targets))
    metric = targets[0].metric
    missed = f"{'Errors' if metric == 'accuracy' else f'100% minus {metric}'} on the test images"
    return [
        plot("targets-latency", "Measured latency", "ms", [t.measured_ms for t in targets], ".4g"),
        plot("targets-errors", missed, "%", [100 * (1 - t.test_accuracy) for t in targets], ".2f"),
        plot("targets-size", "Size of the program", unit, [t.size_bytes / each for t in targets], ".3g"),
    ]
