"""The confusion matrix of a report: its cells, colours and table are those of the figures."""

from __future__ import annotations

import torch
from torch.nn import functional

from hwnas.report.confusion_plot import confusion_plot
from hwnas.tasks import figures_of
from hwnas.tasks.figures import ClassificationFigures

CLASSES = ("good", "<b>cracked</b>", "soiled", "never seen")
LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])
TOLD = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 0, 0])


def figures(classes: tuple[str, ...] = CLASSES) -> ClassificationFigures:
    return figures_of(functional.one_hot(TOLD, len(classes)).float(), LABELS, classes)


def test_cells_are_numbers_and_colours_are_shares_of_a_label() -> None:
    [plot] = confusion_plot(figures(), "2-")
    [heat] = plot.figure.data
    assert plot.name == "2-confusion"
    assert [list(row) for row in heat.text] == [[4, 2, 0, 0], [1, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    shares = [[None if share is None else round(share, 2) for share in row] for row in heat.z]
    assert shares == [[66.67, 33.33, 0, 0], [33.33, 66.67, 0, 0], [100, 0, 0, 0], [None] * 4]
    assert (heat.zmin, heat.zmax) == (0, 100)
    # Labels from the top down, as in a table, and every class at its place on both axes.
    assert list(heat.x) == list(heat.y) == ["good", "&lt;b&gt;cracked&lt;/b&gt;", "soiled", "never seen"]
    assert plot.figure.layout.yaxis.range == (3.5, -0.5)
    assert (plot.figure.layout.xaxis.title.text, plot.figure.layout.yaxis.title.text) == ("predicted class", "label")


def test_the_table_has_what_the_plot_shows() -> None:
    [plot] = confusion_plot(figures(), "")
    assert plot.columns == (
        "label", "images", "recall", "precision", "as good", "as <b>cracked</b>", "as soiled", "as never seen",
    )  # fmt: skip
    assert [tuple(row) for row in plot.rows] == [
        ("good", "6", "66.67%", "66.67%", "4", "2", "0", "0"),
        ("<b>cracked</b>", "3", "66.67%", "50.00%", "1", "2", "0", "0"),
        ("soiled", "1", "0.00%", "undefined", "1", "0", "0", "0"),
        ("never seen", "0", "undefined", "undefined", "0", "0", "0", "0"),
    ]
    assert plot.summary == f"The deployed network on the test images: {figures().words}."


def test_the_height_grows_with_the_classes() -> None:
    heights = [confusion_plot(figures(names), "")[0].figure.layout.height for names in (CLASSES[:3], CLASSES)]
    assert heights[1] - heights[0] == 30


def test_no_plot_without_a_matrix() -> None:
    assert confusion_plot(None, "") == []
    many = figures(tuple(map(str, range(21))))
    assert many.confusion is None
    assert confusion_plot(many, "") == []
