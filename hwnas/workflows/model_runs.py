"""Folders with what was measured and predicted of a model, and its page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from hwnas.errors import OutputError
from hwnas.files import only_one, write_whole
from hwnas.report.figures import MODEL_FIGURES
from hwnas.report.model_figures import (
    Closeness,
    ModelFacts,
    ModelFigures,
    ModelTarget,
    Prediction,
    check_same_model,
    read_model_figures,
)
from hwnas.report.model_page import PAGE, model_page
from hwnas.workflows.inputs import Place
from hwnas.workflows.model_answers import ModelBenchAnswer, ModelSweepAnswer, PredictAnswer

if TYPE_CHECKING:
    from hwnas.models import Model

Answered = TypeVar("Answered", ModelBenchAnswer, ModelSweepAnswer, PredictAnswer)
ModelAnswer: TypeAlias = ModelBenchAnswer | ModelSweepAnswer | PredictAnswer


def facts_of(model: Model, samples: str, out: Place | None) -> ModelFacts:
    """The facts of a model, after a check before long work that a folder may have its figures.

    Args:
        model: the model.
        samples: where its inputs come from, in words.
        out: the folder; None for none.

    Raises:
        HwnasError: as `figures_in`.
    """
    facts = ModelFacts(
        name=model.name,
        sha256=model.sha256,
        inputs=[value.text for value in model.signature.inputs],
        outputs=[value.text for value in model.signature.outputs],
        samples=samples,
        notes=list(model.notes),
    )
    if out is not None:
        figures_in(out, facts)
    return facts


def recorded(answer: Answered, out: Place | None) -> Answered:
    """The answer, after it was added to the figures of its model in a folder, and the page was drawn there.

    Raises:
        HwnasError: as `figures_in`.
        OutputError: a file cannot be written, or another process writes there.
    """
    if out is not None:
        folder = Path(out)
        with only_one(folder / ".lock", str(folder), wait_s=10):
            figures = _added(figures_in(folder, answer.model), answer)
            write_whole(folder / MODEL_FIGURES, figures.json_text())
            write_whole(folder / PAGE, model_page(figures))
    return answer


def figures_in(out: Place, model: ModelFacts) -> ModelFigures:
    """The figures of a model in a folder; none yet if it is empty or does not exist.

    Raises:
        InvalidValue: they are of another model.
        SpecError: the file is malformed.
        OutputError: the folder is a file, or has other things in it.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, but --out is a folder; choose another name")
    path = folder / MODEL_FIGURES
    if path.exists():
        figures = read_model_figures(path)
        check_same_model(figures, model, folder)
        return figures
    if folder.is_dir() and any(not each.name.startswith(".") for each in folder.iterdir()):
        raise OutputError(f"{folder} is not empty, and has no {MODEL_FIGURES}: choose another folder")
    return ModelFigures(model=model)


def _added(figures: ModelFigures, answer: ModelAnswer) -> ModelFigures:
    if isinstance(answer, PredictAnswer):
        prediction = Prediction(**{name: getattr(answer, name) for name in Prediction.model_fields})
        return figures.with_targets([ModelTarget(target=answer.target, prediction=prediction)])
    if isinstance(answer, ModelBenchAnswer):
        timed = [ModelTarget(target=one.target, timing=one) for one in answer.targets]
        return figures.with_targets(timed, left_out=answer.left_out)
    swept = [
        ModelTarget(
            target=one.timing.target,
            timing=one.timing,
            closeness=Closeness(**{name: getattr(one, name) for name in Closeness.model_fields}),
        )
        for one in answer.recipes
    ]
    return figures.with_targets(swept, left_out=answer.left_out, picked=answer.picked)
