"""The page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwnas.deploy.verdict import budget_words, judged_ms, remedy
from hwnas.files import write_whole
from hwnas.report.figures import FIGURES, RunFigures, TargetFigures
from hwnas.report.rendering import render
from hwnas.report.text import ROUND_COLUMNS, round_rows, rounds_words

PAGE = "report.html"


def write_page(out: Path, run: RunFigures) -> Path:
    """Write a run's figures and its page; return the page's path.

    Raises:
        OutputError: a file cannot be written.
    """
    write_whole(out / FIGURES, run.json_text())
    write_whole(out / PAGE, page(run))
    return out / PAGE


def page(run: RunFigures) -> str:
    """The page as HTML."""
    from hwnas.report.plots import ms, percent, short_names, size
    from hwnas.report.run_plots import run_plots
    from hwnas.report.target_plots import target_plots

    several, names = len(run.targets) > 1, short_names(run.targets)
    return render(
        "run.html",
        run=run,
        several=several,
        stories=[
            {
                "id": f"target-{i}",
                "name": name,
                "target": target,
                "plots": plots,
                **_verdicts(target),
            }
            for i, (name, target, plots) in enumerate(zip(names, run.targets, target_plots(run), strict=True), start=1)
        ],
        shared={plot.name: plot for plot in run_plots(run)},
        compared=[
            (
                name,
                ms(t.budget_ms),
                ms(t.predicted_ms),
                ms(t.measured_ms),
                percent(t.test_accuracy),
                percent(t.torch_accuracy),
                percent(t.top1_agreement),
                size(t.size_bytes),
            )
            for name, t in zip(names, run.targets, strict=True)
        ],
        round_columns=ROUND_COLUMNS,
    )


def _verdicts(target: TargetFigures) -> dict[str, Any]:
    """The texts of the page's head."""
    judged = judged_ms(target.measured_ms, target.speed)
    room = 1 - judged / target.budget_ms
    random, largest = target.best_random, target.largest
    versus = [f"{100 * (target.test_accuracy - largest.test_accuracy):+.2f} points against the largest"]
    if random:
        versus.insert(0, f"{100 * (target.test_accuracy - random.test_accuracy):+.2f} points against the best random")
    return {
        "kept": room >= 0,
        "room": f"{room:.1%} below the budget of" if room >= 0 else f"missed: {-room:.1%} above the budget of",
        "versus": [line.replace("-", "−") for line in versus],
        "error": f"{judged / target.predicted_ms - 1:+.1%}".replace("-", "−"),
        "faster": f"{largest.measured_ms / target.measured_ms:.2f}×",
        "budgets": [
            (budget_words(name, value, over := target.over_budgets[name], too_noisy=target.too_noisy), over > 0)
            for name, value in target.budgets.items()
        ],
        "helps": remedy(judged, target.over_budgets),
        "rounds": round_rows([one.model_dump() for one in target.rounds], target.taken),
        "rounds_words": rounds_words(target.rounds_ended),
    }
