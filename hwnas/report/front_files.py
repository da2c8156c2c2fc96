"""Fronts as files: CSV and JSON with every network, and a picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.files import write_whole
from hwnas.search.objectives import Objective
from hwnas.search.problem import Candidate
from hwnas.spaces import Space

Fronts = Mapping[str, Sequence[Candidate]]  # label, such as a target's name -> networks by ascending first cost


def write_fronts(
    folder: Path, space: Space, fronts: Fronts, objective: Objective, *, marked: Fronts | None = None
) -> None:
    """Write ``front.csv``, ``front.json`` and ``front.svg`` into a folder.

    Args:
        folder: created if it does not exist.
        space: of the networks.
        fronts: one or several, such as one per recipe.
        objective: the axis of the picture; all fronts have its unit.
        marked: networks to highlight in the picture, such as those chosen, by the label of their front.

    Raises:
        OutputError: a file cannot be written.
    """
    rows = [
        {
            "front": label,
            "accuracy": c.predicted_accuracy,
            **c.costs,
            **{v.name: c.arch[v.name] for v in space.variables},
        }
        for label, candidates in fronts.items()
        for c in candidates
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / "front.csv", text.getvalue())
    document = {
        "space": space.name,
        "fronts": {
            label: [
                {"accuracy": c.predicted_accuracy, "costs": dict(c.costs), "arch": dict(c.arch)} for c in candidates
            ]
            for label, candidates in fronts.items()
        },
    }
    write_whole(folder / "front.json", json.dumps(document, indent=1) + "\n")
    write_whole(folder / "front.svg", _picture(fronts, objective, marked or {}, space.name))


def _picture(fronts: Fronts, objective: Objective, marked: Fronts, title: str) -> str:
    """The fronts as steps: accuracy over cost."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):  # a deterministic file
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for label, candidates in fronts.items():
            costs = [_first(c) for c in candidates]
            [line] = axes.step(costs, [c.predicted_accuracy * 100 for c in candidates], where="post", label=label)
            for c in marked.get(label, ()):
                axes.plot(_first(c), c.predicted_accuracy * 100, "o", color=line.get_color())
        axes.set_xlabel(
            f"predicted {'latency' if objective.latency else objective.name} ({objective.unit or 'number'})"
        )
        axes.set_ylabel("predicted accuracy (%)")
        axes.set_title(f"{title}: the exact front")
        axes.grid(alpha=0.3)
        axes.legend()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _first(candidate: Candidate) -> float:
    return next(iter(candidate.costs.values()))
