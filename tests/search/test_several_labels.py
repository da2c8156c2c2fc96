"""Trainings and searches on several labels per image."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from several import CLASSES, shapes
from torch.nn import functional

from hwnas.data import DataOptions, Images
from hwnas.latency import LatencyModel
from hwnas.search import latency_objective
from hwnas.search.differentiable import DifferentiableConfig, search_differentiable
from hwnas.search.problem import Constraints
from hwnas.search.study.from_scratch import FromScratch
from hwnas.spaces import Space, make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, load_supernet, train
from hwnas.tasks import parse_metric

NAME = "board/made-up"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Images:
    how = DataOptions(labels="labels.csv", multi_label=True)
    return Images(shapes(tmp_path_factory.mktemp("shapes"), 100), options=how)


@pytest.fixture(scope="module")
def small() -> Space:
    return make_space("mobilenetv3-tiny", in_channels=1, classes=3).fix(resolution=24)


def test_the_largest_learns_labels_and_the_smallest_the_probabilities_of_the_largest(
    data: Images, small: Space, tmp_path: Path
) -> None:
    config = TrainConfig(
        phases=[Phase(name="all", steps=1, learning_rate=0.1)],
        batch_size=8,
        random_subnets=0,
        label_share=0.0,
        label_smoothing=0.1,
    )
    train(Supernet(small, seed=0), data, config, seed=0, folder=tmp_path)
    [row] = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    net = Supernet(small, seed=0).train()
    images, labels = data.train_batch(0, 8, 24, seed=0)
    with torch.no_grad():
        largest, smallest = (net(images, arch) for arch in (small.largest, small.smallest))
    loss = functional.binary_cross_entropy_with_logits
    assert float(row["loss_largest"]) == pytest.approx(float(loss(largest, 0.9 * labels + 0.05)), rel=1e-4)
    assert float(row["loss_smallest"]) == pytest.approx(float(loss(smallest, largest.sigmoid())), rel=1e-4)


def test_a_study_keeps_a_network_by_its_mean_average_precision(data: Images, small: Space, tmp_path: Path) -> None:
    scratch = FromScratch(
        space=small,
        data=data,
        data_facts={"name": "images", "path": str(data.path)},
        config=TrainConfig(phases=[Phase(name="all", steps=2, learning_rate=0.05)], batch_size=16),
        epochs=1,
        images=None,
        seed=0,
        fabric=Fabric(accelerator="cpu", devices=1),
        folder=tmp_path / "best",
        study="x",
        metric=parse_metric(None, CLASSES, task=data.task),
    )
    [value] = scratch(small.smallest)
    _, facts = load_supernet(tmp_path / "best")
    assert facts.training["validation_accuracy"] == value
    assert (facts.task, facts.training["metric"]) == ("multi-label", "mAP")
    figures = facts.training["figures"]
    assert isinstance(figures, dict)
    assert (figures["task"], figures["value"]) == ("multi-label", value)


@pytest.mark.parametrize("strategy", ["gdas", "darts"])
def test_a_differentiable_search_learns_from_labels(data: Images, small: Space, tmp_path: Path, strategy: str) -> None:
    total = small.slot_sum(lambda op: 1e-3 + op.macs / 1e8)
    model = LatencyModel(space=small, target=NAME, total=total, plain=total, fit=None)
    budget = float(np.median(total(small.sample(500, seed=0))))
    wanted = Constraints(space=small, objectives=(latency_objective(model),), budgets={NAME: budget}, confidence=None)
    config = DifferentiableConfig(steps=2, batch_size=4, warmup=0.0, update_every=1)
    notes: list[str] = []
    found = search_differentiable(
        wanted, data, strategy, config, folder=tmp_path, progress=lambda *_, note="", **__: notes.append(note)
    )
    assert found.repaired.costs[NAME] <= budget
    losses = [float(note.removeprefix("loss ")) for note in notes if note.startswith("loss ")]
    assert losses[0] == pytest.approx(np.log(2), abs=0.4)  # a binary cross entropy at outputs near 0, not log 3
