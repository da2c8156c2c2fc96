"""Folders of figures: the run of a job, or what is known of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.report.figures import RunFigures, read_figures
from hwnas.report.model_figures import MODEL_FIGURES, ModelFigures, read_model_figures
from hwnas.report.model_page import model_page
from hwnas.report.page import page

if TYPE_CHECKING:
    from hwnas.report.plots import Plot


def page_and_plots(folder: Path) -> tuple[Callable[[], str], Callable[[], list[Plot]]]:
    """What draws the page of a folder, and what draws its plots.

    Raises:
        SpecError: the folder has no figures, or malformed ones.
    """
    if (folder / MODEL_FIGURES).is_file():
        model = read_model_figures(folder / MODEL_FIGURES)
        return lambda: model_page(model), lambda: _model_plots(model)
    run = read_figures(folder)
    return lambda: page(run), lambda: _run_plots(run)


def _run_plots(run: RunFigures) -> list[Plot]:
    from hwnas.report.run_plots import run_plots
    from hwnas.report.target_plots import target_plots

    return [plot for own in (*target_plots(run), run_plots(run)) for plot in own]


def _model_plots(figures: ModelFigures) -> list[Plot]:
    from hwnas.report.model_plots import recipes_plot, target_plots

    common = [recipes_plot(figures)] if len(figures.targets) > 1 else []
    return [*common, *(plot for own in target_plots(figures) for plot in own)]
