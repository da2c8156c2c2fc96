"""Accuracy models: fitted on evaluated subnets, cross-validated on held-out subnets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from hwnas.accuracy.evaluate import Evaluator
from hwnas.accuracy.predictors import FittedPredictor, fit_predictors
from hwnas.accuracy.sample import spread_over_cost
from hwnas.accuracy.stagewise import fit_score, logit, parameters
from hwnas.errors import InvalidValue
from hwnas.files import Journal
from hwnas.progress import Progress, silent
from hwnas.spaces import Codes, SlotSum, Space

Floats = npt.NDArray[np.float64]

_FOLDS = 5
DEFAULT = "ensemble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Accuracy of a model's predictions on held-out networks.

    Attributes:
        kendall_tau: rank correlation of predicted and evaluated accuracies; NaN if undefined.
        rmse: root of the mean squared error, as a fraction.
        within_one_sigma: share of the networks whose accuracy lies within one standard deviation of the prediction;
            about .68 for normal errors (the deviation is scaled on the same networks). None for a model without
            uncertainty.
    """

    kendall_tau: float
    rmse: float
    within_one_sigma: float | None = None

    def known(self) -> dict[str, float | None]:
        """The figures as JSON values: None for undefined ones."""
        return {name: None if value is None or math.isnan(value) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class AccuracyModel:
    """Predicts accuracies from codes: the stage-wise model for searches, averaged with a predictor for re-ranking.

    Attributes:
        score: the stage-wise sum; accuracy increases with it.
        predictor: of scores, by default the ensemble of MLPs.
        weight: weight of the predictor's mean relative to the stage-wise score in `predict`.
        noise: standard deviation of scores beyond that of the predictor's mean.
        subnets: number of networks in the fit.
        quality: by cross-validation, of the stage-wise model and, under ``ensemble``, of `predict`.
    """

    score: SlotSum
    predictor: FittedPredictor
    weight: float
    noise: float
    subnets: int
    quality: dict[str, Quality]

    def __call__(self, codes: Codes) -> Floats:
        """Codes ``(n, variables)`` -> accuracies by the stage-wise model, ``(n,)``."""
        accuracies: Floats = special.expit(self.score(codes))
        return accuracies

    def predict(self, codes: Codes, *, noise: bool = True) -> tuple[Floats, Floats]:
        """Accuracies by both models and their standard deviations, ``(n,)`` each.

        Args:
            codes: networks, ``(n, variables)``.
            noise: whether deviations contain `noise`, as those of evaluations do; otherwise they are the part by which
                networks differ.
        """
        extra = self.noise if noise else 0.0
        return _accuracy(*_joined(self.score(codes), *self.predictor.predict(codes), self.weight, extra))

    ensemble_predict = predict  # its name when the predictor was always the ensemble


def fit_accuracy(
    space: Space, codes: Codes, accuracies: Floats, *, predictor: str = DEFAULT, seed: int = 0
) -> AccuracyModel:
    """Fit an accuracy model on evaluated networks.

    The stage-wise model is that of `hwnas.accuracy.stagewise`. `AccuracyModel.predict` is a weighted mean of it and of
    a predictor, with the weight that is best on held-out networks (stacking: Wolpert, 1992).

    Args:
        space: the space.
        codes: networks, ``(n, variables)``, preferably spread over cost (`hwnas.accuracy.spread_over_cost`).
        accuracies: as fractions, ``(n,)``.
        predictor: one of `hwnas.accuracy.predictors.predictor_names`.
        seed: of the predictor and of the folds of the cross-validation.

    Raises:
        UnknownName, PluginError: there is no such predictor, or it cannot be loaded.
        InvalidValue: fewer networks than the model has parameters; accuracies that are not fractions; the predictor
            cannot encode the space.
    """
    if len(codes) != len(accuracies) or not ((accuracies >= 0) & (accuracies <= 1)).all():
        raise InvalidValue(
            f"an accuracy model needs one accuracy per network, as a fraction from 0 to 1; got {len(accuracies)} for "
            f"{len(codes)} networks"
            + (f", from {accuracies.min():g} to {accuracies.max():g}" if len(accuracies) else "")
        )
    check_enough(space, len(codes))
    codes, scores = space.canonical(codes), logit(accuracies)
    score = fit_score(space, codes, scores)
    stagewise, mean, deviation, fitted = _unseen(predictor, space, codes, scores, seed)
    apart = mean - stagewise
    weight = 1.0  # of a predictor whose means are the stage-wise ones: its deviations count
    if apart @ apart > 1e-6 * (scores @ scores):
        weight = float(np.clip(apart @ (scores - stagewise) / (apart @ apart), 0.0, 1.0))
    errors = scores - (stagewise + weight * apart)
    noise = float(np.sqrt(max((errors**2).mean() - weight**2 * (deviation**2).mean(), 1e-12)))
    predicted, sigma = _accuracy(*_joined(stagewise, mean, deviation, weight, noise))
    inside = float((np.abs(accuracies - predicted) <= sigma).mean())
    return AccuracyModel(
        score=score,
        predictor=fitted,
        weight=weight,
        noise=noise,
        subnets=len(codes),
        quality={
            "stagewise": _quality(special.expit(stagewise), accuracies),
            "ensemble": _quality(predicted, accuracies, inside),
        },
    )


def fit_on_subnets(
    evaluator: Evaluator,
    journal: Journal,
    *,
    subnets: int,
    predictor: str = DEFAULT,
    seed: int,
    progress: Progress = silent,
) -> AccuracyModel:
    """Evaluate subnets spread over cost (`evaluate_subnets`), and fit a model on them (`fit_accuracy`).

    Raises:
        InvalidValue: fewer subnets than the model has parameters.
    """
    codes, accuracies = evaluate_subnets(evaluator, journal, subnets=subnets, seed=seed, progress=progress)
    return fit_accuracy(evaluator.supernet.space, codes, np.array(accuracies), predictor=predictor, seed=seed)


def evaluate_subnets(
    evaluator: Evaluator, journal: Journal, *, subnets: int, seed: int, progress: Progress = silent
) -> tuple[Codes, list[float]]:
    """Evaluate subnets spread over cost.

    Args:
        evaluator: evaluates subnets.
        journal: record of evaluations; those in it are not repeated.
        subnets: number of subnets; all of the space if it has fewer.
        seed: of the draw.
        progress: callback, invoked during the evaluations.

    Returns:
        codes ``(n, variables)``, and the accuracy of each, as a fraction.

    Raises:
        InvalidValue: fewer subnets than the model has parameters.
    """
    space = evaluator.supernet.space
    check_enough(space, min(subnets, space.size))
    codes = spread_over_cost(space, min(subnets, space.size), seed=seed)
    return codes, evaluator.accuracies(space.decode(codes), journal, what="evaluating subnets", progress=progress)


def check_enough(space: Space, networks: int) -> None:
    """Check that an accuracy model can be fitted on this number of networks.

    Raises:
        InvalidValue: there are fewer networks than parameters.
    """
    if networks < parameters(space):
        raise InvalidValue(
            f"an accuracy model of {space.name} has {parameters(space)} parameters and needs at least as many "
            f"evaluated networks, not {networks}; 300 is a good number. Evaluate more, or restrict the space"
        )


def _unseen(
    predictor: str, space: Space, codes: Codes, scores: Floats, seed: int
) -> tuple[Floats, Floats, Floats, FittedPredictor]:
    """Cross-validated scores of each network, stage-wise and by the predictor with its deviations, ``(n,)`` each.

    Last, the predictor fitted on all. All are fitted at the same time.
    """
    order = np.random.default_rng((seed, 8)).permutation(len(codes))
    folds = min(_FOLDS, len(codes))
    left_out = [order[fold::folds] for fold in range(folds)]
    samples = [(codes[rest], scores[rest]) for rest in (np.setdiff1d(order, out) for out in left_out)]
    *fitted, whole = fit_predictors(predictor, space, [*samples, (codes, scores)], seed=seed)
    stagewise, mean, deviation = np.empty(len(codes)), np.empty(len(codes)), np.empty(len(codes))
    for out, sample, one in zip(left_out, samples, fitted, strict=True):
        stagewise[out] = fit_score(space, *sample)(codes[out])
        mean[out], deviation[out] = one.predict(codes[out])
    return stagewise, mean, deviation, whole


def _joined(stagewise: Floats, mean: Floats, deviation: Floats, weight: float, noise: float) -> tuple[Floats, Floats]:
    """Scores by both models and their standard deviations, ``(n,)`` each."""
    return (1 - weight) * stagewise + weight * mean, np.sqrt((weight * deviation) ** 2 + noise**2)


def _accuracy(scores: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """Accuracies and their standard deviations from those of scores, by the slope of the link."""
    accuracies = special.expit(scores)
    return accuracies, sigma * accuracies * (1 - accuracies)


def _quality(predicted: Floats, accuracies: Floats, inside: float | None = None) -> Quality:
    return Quality(
        kendall_tau=float(stats.kendalltau(predicted, accuracies).statistic),
        rmse=float(np.sqrt(((predicted - accuracies) ** 2).mean())),
        within_one_sigma=inside,
    )
