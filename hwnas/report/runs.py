"""Folders of figures: the run of a job, or what is known of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.report.figures import MODEL_FIGURES, RunFigures, read_figures

if TYPE_CHECKING:
    from hwnas.report.model_figures import ModelFigures
    from hwnas.report.plots import Plot

    Drawn = tuple[Callable[[], str], Callable[[], list[Plot]]]


def page_and_plots(folder: Path) -> Drawn:
    """What draws the page of a folder, and what draws its plots.

    Raises:
        SpecError: the folder has no figures, or malformed ones.
    """
    return _of_model(folder) if (folder / MODEL_FIGURES).is_file() else _of_run(folder)


def _of_run(folder: Path) -> Drawn:
    from hwnas.report.page import page

    run = read_figures(folder)
    return lambda: page(run), lambda: _run_plots(run)


def _of_model(folder: Path) -> Drawn:
    from hwnas.report.model_figures import read_model_figures
    from hwnas.report.model_page import model_page

    figures = read_model_figures(folder / MODEL_FIGURES)
    return lambda: model_page(figures), lambda: _model_plots(figures)


def _run_plots(run: RunFigures) -> list[Plot]:
    from hwnas.report.run_plots import run_plots
    from hwnas.report.target_plots import target_plots

    return [plot for own in (*target_plots(run), run_plots(run)) for plot in own]


def _model_plots(figures: ModelFigures) -> list[Plot]:
    from hwnas.report.model_plots import recipes_plot, target_plots

    common = [recipes_plot(figures)] if len(figures.targets) > 1 else []
    return [*common, *(plot for own in target_plots(figures) for plot in own)]
