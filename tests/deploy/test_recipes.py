"""What leaves a recipe out of the choice; the choice itself is tested where the command line makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.accuracy import Evaluator
from hwnas.deploy import parity
from hwnas.deploy.parity import deployed_parity
from hwnas.errors import GraphError, InfeasibleBudget, ParityError
from hwnas.files import Journal
from hwnas.latency import LatencyTable, load_model
from hwnas.latency.manifest import Fit
from hwnas.search import Problem, latency_objective
from hwnas.spaces import Domain, Space
from hwnas.targets import Target
from hwnas.workflows import recipes
from hwnas.workflows.recipes import choose_recipe


@pytest.fixture
def problem(space: Space, this: Target, make_table: Callable[..., LatencyTable]) -> Problem:
    """The most multiply-accumulates within any time."""
    fit = Fit(
        domain=Domain.of(space),
        seed=0,
        calibration_ms=[1.0] * 16,
        terms={"scale": 1.0},
        held_out_mape=0.0,
        scores=[0.01] * 19,
        measurement={},
    )
    objective = latency_objective(load_model(make_table(space, this).with_fit(fit), space))
    return Problem(space=space, accuracy=space.macs, objectives=(objective,), budgets={objective.name: 1e9})


def test_a_table_that_cannot_tell_so_much_confidence(
    problem: Problem, this: Target, evaluator: Evaluator, tmp_path: Path
) -> None:
    with (
        Journal(tmp_path / "journal.jsonl", {}) as journal,
        pytest.raises(InfeasibleBudget, match=f"can be deployed: {this.name}: a confidence of 0.99 requires 99 bound"),
    ):
        choose_recipe({this.name: replace(problem, confidence=0.99)}, {this.name: this}, evaluator, journal)


def test_a_program_that_the_runtime_cannot_load(
    problem: Problem, this: Target, evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph")
    monkeypatch.setattr(recipes, "lower_subnet", lambda *_: broken)
    with (
        Journal(tmp_path / "journal.jsonl", {}) as journal,
        pytest.raises(InfeasibleBudget, match=f"can be deployed: {this.name}: .*model.onnx"),
    ):
        choose_recipe({this.name: problem}, {this.name: this}, evaluator, journal, candidates=1)


@pytest.mark.parametrize("error", [GraphError("it is too large"), OSError(28, "it is too large")])
def test_a_network_that_cannot_be_lowered(
    problem: Problem,
    this: Target,
    evaluator: Evaluator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(recipes, "lower_subnet", fails)
    with (
        Journal(tmp_path / "journal.jsonl", {}) as journal,
        pytest.raises(InfeasibleBudget, match=f"can be deployed: {this.name}: it is too large"),
    ):
        choose_recipe({this.name: problem}, {this.name: this}, evaluator, journal, candidates=1)


def test_progress_counts_the_images_that_there_are(
    space: Space, this: Target, evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Evaluator(evaluator.supernet, evaluator.data, images=10**9, calibration_images=8, seed=1)
    told = []

    def checked(*_: object, images: int, **__: object) -> None:
        told.append(images)
        raise ParityError("enough")

    monkeypatch.setattr(parity, "compare", checked)
    with Journal(tmp_path / "journal.jsonl", {}) as journal, pytest.raises(ParityError):
        deployed_parity(space.smallest, few, this.recipe, journal, lambda: (few.subnet(space.smallest), tmp_path))
    assert told == [evaluator.data.size("validation")]
