from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwnas.accuracy import fit_accuracy, spread_over_cost
from hwnas.errors import UnknownName
from hwnas.files import Journal
from hwnas.progress import Progress, silent
from hwnas.search import Objective, Problem
from hwnas.search.acquisition import ACQUISITIONS, check_acquisition, expected_improvement
from hwnas.search.rerank import choose
from hwnas.spaces import Arch, Space, make_space

SPACE = make_space("nasbench201-tiny")


def test_expected_improvement_is_the_mean_of_what_exceeds_the_best() -> None:
    mean, deviation, best = np.array([0.7, 0.8, 0.75]), np.array([0.1, 0.02, 0.2]), 0.78
    draws = mean + deviation * np.random.default_rng(0).normal(size=(400_000, 3))
    expected = np.maximum(draws - best, 0).mean(axis=0)
    np.testing.assert_allclose(expected_improvement(mean, deviation, best), expected, rtol=0.02)


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_without_uncertainty_the_mean_decides(name: str) -> None:
    mean = np.random.default_rng(1).normal(size=20)
    for best in (-np.inf, -3.0, 0.0, 3.0):
        use = ACQUISITIONS[name](mean, np.zeros(20), best)
        np.testing.assert_array_equal(np.argsort(-use), np.argsort(-mean))


def test_uncertainty_is_worth_an_evaluation() -> None:
    mean, deviation = np.array([0.80, 0.79]), np.array([0.001, 0.05])
    first = {name: int(np.argmax(use(mean, deviation, 0.81))) for name, use in ACQUISITIONS.items()}
    assert first == {"mean": 0, "ei": 1, "ucb": 1}


def test_an_unknown_acquisition() -> None:
    with pytest.raises(UnknownName, match=r"unknown acquisition 'eu'. .*Known: mean, ei, ucb"):
        check_acquisition("eu")


class Recorded:
    """Accuracies that grow with the MACs; the order of the evaluations is kept."""

    def __init__(self, space: Space) -> None:
        self.space, self.asked = space, list[Arch]()

    def accuracies(
        self, archs: Sequence[Arch], journal: Journal, *, what: str, progress: Progress = silent
    ) -> list[float]:
        self.asked += archs
        codes = self.space.encode(list(archs))
        noise = [np.random.default_rng(row.tolist()).normal(0, 0.02) for row in codes]
        share = self.space.macs(codes) / self.space.macs(self.space.encode([self.space.largest]))
        return [float(each) for each in np.clip(0.5 + 0.3 * share + noise, 0.01, 0.99)]

    def evaluated(self, journal: Journal) -> Mapping[Arch, float]:
        return {}


def test_acquisitions_evaluate_their_own_order(tmp_path: Path) -> None:
    codes = spread_over_cost(SPACE, 60, seed=0)
    cost = Objective(name="params", unit="", total=SPACE.params)
    budget = float(np.median(SPACE.params(codes)))
    with Journal(tmp_path / "j", {}) as journal:
        known = Recorded(SPACE).accuracies(SPACE.decode(codes), journal, what="x")
        model = replace(fit_accuracy(SPACE, codes, np.array(known), predictor="gp"), weight=1.0)
        problem = Problem(space=SPACE, accuracy=model, objectives=(cost,), budgets={"params": budget}, confidence=None)
        earlier = dict(zip(SPACE.decode(codes), known, strict=True))
        asked, best = {}, {}
        for name in ACQUISITIONS:
            evaluator = Recorded(SPACE)
            chosen = choose(
                problem,
                evaluator,
                journal,
                candidates=15,
                acquisition=name,
                evaluated=earlier,  # type: ignore[arg-type]
            )
            asked[name], best[name] = evaluator.asked, chosen.accuracies[0]
            mean, deviation = model.predict(SPACE.encode(evaluator.asked), noise=False)
            within = max(a for arch, a in earlier.items() if SPACE.params(SPACE.encode([arch]))[0] <= budget)
            use = ACQUISITIONS[name](mean[:10], deviation[:10], within)
            assert (np.diff(use) <= 0).all()  # the first ten, by decreasing use
            assert len(set(evaluator.asked)) == 15
            assert "the gp selected 15 of them" in chosen.proof
    assert asked["mean"] != asked["ucb"]
    assert min(best.values()) >= within


class Remembering(Recorded):
    """As `Recorded`, whose journal has what earlier commands evaluated."""

    known: Mapping[Arch, float] = {}

    def evaluated(self, journal: Journal) -> Mapping[Arch, float]:
        return self.known


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_a_repeated_command_evaluates_the_same_networks(name: str, tmp_path: Path) -> None:
    codes = spread_over_cost(SPACE, 60, seed=0)
    cost = Objective(name="params", unit="", total=SPACE.params)
    with Journal(tmp_path / "j", {}) as journal:
        accuracies = np.array(Recorded(SPACE).accuracies(SPACE.decode(codes), journal, what="x"))
        model = replace(fit_accuracy(SPACE, codes, accuracies, predictor="gp"), weight=1.0)
        budgets = {"params": float(np.median(SPACE.params(codes)))}
        problem = Problem(space=SPACE, accuracy=model, objectives=(cost,), budgets=budgets, confidence=None)
        first, again = Remembering(SPACE), Remembering(SPACE)
        answers = [choose(problem, first, journal, candidates=30, acquisition=name)]  # type: ignore[arg-type]
        asked = list(first.asked)
        again.known = dict(zip(asked, first.accuracies(asked, journal, what="x"), strict=True))
        answers.append(choose(problem, again, journal, candidates=30, acquisition=name))  # type: ignore[arg-type]
    assert again.asked == asked
    assert answers[0].candidates[0] == answers[1].candidates[0]
