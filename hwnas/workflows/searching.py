"""Search among the subnets of a trained supernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.progress import Progress, Stopping, never, silent, unstoppable
from hwnas.workflows import inputs
from hwnas.workflows.answers import NetworkAnswer, SearchAnswer
from hwnas.workflows.inputs import Place

if TYPE_CHECKING:
    from hwnas.accuracy import AccuracyModel, Evaluator
    from hwnas.engines import EngineConfig
    from hwnas.files import Journal
    from hwnas.search import Problem
    from hwnas.search.problem import Constraints
    from hwnas.search.rerank import Chosen
    from hwnas.spaces import Arch
    from hwnas.workflows.recipes import RecipeChoice


def search(
    supernet: Place,
    *,
    budget: str | Sequence[str],
    target: str | None = None,
    strategy: str = "exact",
    data_path: Place | None = None,
    accuracy: Place | None = None,
    subnets: int = 300,
    images: int | None = 2000,
    calibration_images: int = 2000,
    metric: str | None = None,
    positive: str | None = None,
    candidates: int = 20,
    predictor: str = "ensemble",
    acquisition: str = "mean",
    confidence: float | None = 0.95,
    family: bool = False,
    explain: bool = False,
    front: Place | None = None,
    out: Place | None = None,
    tables: Place | None = None,
    engine: EngineConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
    stopping: Stopping = unstoppable,
) -> SearchAnswer:
    """Find the most accurate subnets within budgets: fit an accuracy model, search with it, evaluate the best.

    Args:
        supernet: folder from `hwnas train`.
        budget: ``0.8ms``, or ``50%`` of the largest network's; ``NAME=VALUE`` for other targets and for resources.
            All of several budgets apply.
        target: target of a budget without a name, ``device/recipe``; the device ``this`` is the present host, and the
            recipe ``*`` also chooses the recipe.
        strategy: see `hwnas.search.STRATEGIES`.
        accuracy: CSV file of accuracies to fit, instead of evaluated subnets.
        subnets: number of subnets to evaluate for the accuracy model; all if the space has fewer.
        data_path: folder where the supernet's images are now, if they were moved.
        images: number of validation images per evaluation; all if None.
        calibration_images: training images for BN re-calibration.
        metric: what evaluations measure and the search maximises (`hwnas.tasks.parse_metric`); by default top1, or mAP
            for several labels per image.
        positive: class of the metric.
        candidates: number of networks to evaluate at the end.
        predictor: of the accuracy model, which re-ranks the networks of the search: see
            `hwnas.accuracy.predictors.PREDICTORS`.
        acquisition: which of them are evaluated first: ``mean``, ``ei`` or ``ucb`` (`hwnas.search.acquisition`).
        confidence: that a measured latency stays within its budget; None applies the budget to the prediction itself.
        family: find one network per budget instead of one for all.
        explain: also return where the milliseconds go, and the gain of larger budgets.
        front: folder for the whole front, as CSV, JSON and a picture.
        out: file for the network, ``arch.json``; for a family, a folder.
        tables: folder of latency tables; the catalog's if None.
        engine: where subnets are evaluated; this process if None.
        seed: random seed.
        progress: callback, invoked during evaluations and search.
        stopping: creates the context in which the search can be stopped early; the best networks so far are then
            evaluated.

    Returns:
        the network; for a family, one per budget.

    Raises:
        SpecError, DataError: the supernet, its data or a file cannot be read.
        UnknownName, InvalidValue: a name or a value is unknown or invalid.
        TableError: a target has no table, or it lacks the space.
        InfeasibleBudget: no network is within the budgets.
        OutputError: a file cannot be written.
        EngineError: the engine cannot run here, or an evaluation ended three of its workers.
    """
    from hwnas.accuracy import fit_accuracy, fit_on_subnets
    from hwnas.accuracy.predictors import check_predictor
    from hwnas.accuracy.table import read_accuracies
    from hwnas.engines import open_engine
    from hwnas.search import Problem
    from hwnas.search.acquisition import check_acquisition
    from hwnas.search.solver import check_strategy
    from hwnas.workflows import networks as made
    from hwnas.workflows.constraints import asked
    from hwnas.workflows.recipes import choose_recipe

    supernet, file, pictures = Path(supernet), Path(out) if out else None, Path(front) if front else None
    made.check_places(file, pictures, family=family)
    check_acquisition(acquisition)
    with open_engine(engine) as where:
        evaluator, facts = inputs.evaluator_of(
            supernet,
            images=images,
            calibration_images=calibration_images,
            seed=seed + 1,
            metric=metric,
            positive=positive,
            data_path=data_path,
            engine=where,
        )
        space = evaluator.supernet.space
        wanted = asked(
            space,
            [budget] if isinstance(budget, str) else list(budget),
            target,
            tables=Path(tables) if tables else None,
            family=family,
            confidence=confidence,
        )
        check_strategy(strategy, space)
        check_predictor(predictor, space)
        own = read_accuracies(Path(accuracy), space) if accuracy else None
        with evaluator.journal(inputs.evaluations_folder(supernet), facts.weights_sha256) as journal:
            if own:
                model = fit_accuracy(space, *own, predictor=predictor, seed=seed)
            else:
                model = fit_on_subnets(
                    evaluator, journal, subnets=subnets, predictor=predictor, seed=seed, progress=progress
                )
            how: Any = {
                "strategy": strategy,
                "candidates": candidates,
                "acquisition": acquisition,
                "progress": progress,
            }
            choices, answers = list["RecipeChoice"](), list[NetworkAnswer]()
            problems = {
                label: Problem.of(constraints, accuracy=model, seed=seed)
                for label, constraints in wanted.constraints.items()
            }
            with stopping() as stop:
                if wanted.choice:
                    choices, left_out = choose_recipe(problems, wanted.targets, evaluator, journal, stop=stop, **how)
                    out_of = wanted.skipped | left_out
                    answer = made.recipe_answer(
                        problems, choices, out_of, model, metric=evaluator.metric.name, stopped=stop()
                    )
                    answers.append(answer)
                else:
                    for constraints in wanted.constraints.values():
                        answers.append(
                            best_network(constraints, model, evaluator, journal, seed=seed, stop=stop, **how).answer
                        )
    files = made.answer_files(file, answers, family=family) if file else []
    for path, answer in zip(files, answers, strict=False):  # first, before other errors can occur
        made.write_arch(path, answer)
    if explain:
        answers = [
            answer.model_copy(update={"explained": made.explained(problems[answer.label], answer)})
            for answer in answers
        ]
        for path, answer in zip(files, answers, strict=False):
            made.write_arch(path, answer)
    if pictures:
        made.write_front(pictures, problems, choices, answers)
    return SearchAnswer(networks=answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BestNetwork:
    """A search: its problem, the networks evaluated at its end, and the answer."""

    problem: Problem
    chosen: Chosen
    answer: NetworkAnswer


def best_network(
    constraints: Constraints,
    model: AccuracyModel,
    evaluator: Evaluator,
    journal: Journal,
    *,
    strategy: str,
    candidates: int,
    acquisition: str = "mean",
    evaluated: Mapping[Arch, float] | None = None,
    seed: int,
    progress: Progress = silent,
    stop: Callable[[], bool] = never,
) -> BestNetwork:
    """Search with an accuracy model, and evaluate the best.

    Args:
        constraints: the budgets.
        model: predicts accuracies.
        evaluator: evaluates subnets.
        journal: record of evaluations.
        strategy: of the search.
        candidates: number of networks to evaluate.
        acquisition: which of them are evaluated first.
        evaluated: accuracies of other networks on the same images, considered as well.
        seed: random seed.
        progress: callback, invoked during search and evaluations.
        stop: polled regularly; when it returns True, the best so far are evaluated.

    Raises:
        UnknownName, InvalidValue, InfeasibleBudget: as in `hwnas.search.solve`.
    """
    from hwnas.search import Problem
    from hwnas.search.rerank import choose
    from hwnas.workflows.networks import network_answer

    problem = Problem.of(constraints, accuracy=model, seed=seed)
    chosen = choose(
        problem,
        evaluator,
        journal,
        strategy=strategy,
        candidates=candidates,
        acquisition=acquisition,
        evaluated=evaluated,
        progress=progress,
        stop=stop,
    )
    [figures] = evaluator.figures([chosen.candidates[0].arch], journal, what="evaluating the best", progress=progress)
    answer = network_answer(problem, chosen, model, metric=evaluator.metric.name, figures=figures, stopped=stop())
    return BestNetwork(problem=problem, chosen=chosen, answer=answer)
