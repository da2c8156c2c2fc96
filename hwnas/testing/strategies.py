"""Test suite for search strategies."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.errors import InfeasibleBudget
from hwnas.search import Problem, resource, solve
from hwnas.spaces import make_space

_EVALUATIONS = 600


def problem(level: float) -> Problem:
    """The most MACs of a network of mobilenetv3-tiny within a budget of parameters.

    Args:
        level: share of random networks within the budget; none if below 0.
    """
    space = make_space("mobilenetv3-tiny")
    params = resource(space, "params")
    counts = params.total(space.sample(500, seed=0))
    budget = float(np.quantile(counts, level)) if level >= 0 else 1.0
    return Problem(
        space=space, accuracy=space.macs, objectives=(params,), budgets={params.name: budget}, confidence=None
    )


class StrategySuite:
    """Tests of a strategy; a subclass, named Test..., provides its name as a fixture `strategy`."""

    @pytest.fixture
    def strategy(self) -> str:
        """The name of the strategy under test; a subclass overrides it."""
        raise NotImplementedError("a subclass of StrategySuite must define a fixture `strategy`")

    def test_budgets_are_kept_and_the_best_comes_first(self, strategy: str) -> None:
        asked = problem(0.4)
        found = solve(asked, strategy, candidates=3, evaluations=_EVALUATIONS)
        codes = asked.space.encode([candidate.arch for candidate in found.candidates])
        assert 1 <= len(found.candidates) <= 3
        assert len({candidate.arch for candidate in found.candidates}) == len(found.candidates)
        assert (asked.excess(codes) == 0).all()
        accuracies = [candidate.predicted_accuracy for candidate in found.candidates]
        assert accuracies == sorted(accuracies, reverse=True)
        assert found.evaluations <= _EVALUATIONS

    def test_the_seed_decides(self, strategy: str) -> None:
        first, again = (solve(problem(0.4), strategy, candidates=2, evaluations=_EVALUATIONS) for _ in range(2))
        assert first == again

    def test_what_is_proved_is_the_best(self, strategy: str) -> None:
        best, found = (
            solve(problem(0.4), name, candidates=1, evaluations=_EVALUATIONS) for name in ("exact", strategy)
        )
        reached, most = (each.candidates[0].predicted_accuracy for each in (found, best))
        assert reached == pytest.approx(most, rel=1e-9) if found.proved else reached <= most * (1 + 1e-9)

    def test_a_budget_that_no_network_keeps_is_an_error(self, strategy: str) -> None:
        with pytest.raises(InfeasibleBudget):
            solve(problem(-1.0), strategy, evaluations=_EVALUATIONS)
