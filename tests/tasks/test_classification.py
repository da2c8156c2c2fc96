"""Figures of a classifier, counted by hand; differences that are noise, and those that are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional

from hwnas.accuracy import difference_of, figures_of, parse_metric
from hwnas.data.photographs import stratified
from hwnas.tasks.metrics import TOP1

CLASSES = ("good", "cracked", "soiled")
LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])
TOLD = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 0, 0])


def outputs_of(told: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return functional.one_hot(told, classes).float()


def test_figures_are_those_counted_by_hand() -> None:
    found = figures_of(outputs_of(TOLD), LABELS, CLASSES)
    assert (found.images, found.metric, found.value, found.accuracy) == (10, "top1", 0.6, 0.6)
    wilson = binomtest(6, 10).proportion_ci(method="wilson")
    assert (found.interval.low, found.interval.high) == pytest.approx((wilson.low, wilson.high))
    assert (found.majority, found.majority_share, found.baseline) == ("good", 0.6, 0.6)
    assert found.confusion == [[4, 2, 0], [1, 2, 0], [1, 0, 0]]
    good, cracked, soiled = found.classes
    assert (good.images, good.predicted, good.recall, good.precision) == (
        6,
        6,
        pytest.approx(4 / 6),
        pytest.approx(4 / 6),
    )
    assert (cracked.recall, cracked.precision, cracked.f1) == pytest.approx((2 / 3, 2 / 4, 4 / 7))
    assert (soiled.images, soiled.predicted, soiled.recall, soiled.precision) == (1, 0, 0, None)
    assert [(one.label, one.predicted, one.images) for one in found.confusions] == [
        ("good", "cracked", 2),
        ("cracked", "good", 1),
        ("soiled", "good", 1),
    ]
    assert found.words == (
        f"60.00% on 10 images (95% interval {found.interval.words}); 'good' for every image: 60.00%; "
        "recall 0.0% of 'soiled', 66.7% of 'good', 66.7% of 'cracked'"
    )


def test_the_class_of_the_metric_is_named() -> None:
    metric = parse_metric("f1", CLASSES, "cracked")
    found = figures_of(outputs_of(TOLD), LABELS, CLASSES, metric)
    assert found.value == pytest.approx(4 / 7)
    assert found.interval.low < found.value < found.interval.high
    assert found.baseline == 0
    assert found.words.startswith("57.14% f1 of cracked on 10 images")
    assert found.words.endswith(
        "top-1 accuracy 60.00%; 'good' for every image: 0.00%; recall 66.7% of 'cracked'; precision 50.0%"
    )


def test_many_classes_stay_small() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1500, (4000,), generator=generator)
    told = torch.where(torch.rand(4000, generator=generator) < 0.5, labels, (labels + 1) % 1500)
    found = figures_of(outputs_of(told, 1500), labels, [f"c{i}" for i in range(1500)])
    assert found.confusion is None
    assert len(found.classes) == 1000
    assert len(found.confusions) == 20
    assert len(found.model_dump_json()) < 200_000


@pytest.mark.parametrize(("images", "changed", "seen"), [(500, 2, False), (500, 60, True)])
def test_a_difference_is_noise_or_not(images: int, changed: int, seen: bool) -> None:
    labels = torch.arange(images) % 2
    first = labels.clone()
    first[: images // 5] = 1 - first[: images // 5]
    second = first.clone()
    second[-changed:] = 1 - second[-changed:]
    for metric in (TOP1, parse_metric("f1", ("a", "b"), "b")):
        found = difference_of(metric, outputs_of(first, 2), outputs_of(second, 2), labels)
        assert found.value > 0
        assert found.distinguishable == seen
        assert ("not distinguishable" in found.words) != seen
    same = difference_of(TOP1, outputs_of(first, 2), outputs_of(first, 2), labels)
    assert (same.value, same.distinguishable) == (0, False)


@pytest.mark.parametrize("size", [20, 50, 100, 200])
def test_parts_of_a_split_stand_for_the_whole(size: int) -> None:
    """Networks with recall .95 of the usual class and .45 of the rare one, each on 10 parts of each size."""
    away = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = (rng.random(2000) < 0.31).astype(int)
        right = rng.random(2000) < np.where(labels == 1, 0.45, 0.95)
        whole = right.mean()
        order = stratified(labels.tolist())
        parts = [order[i * size : (i + 1) * size] for i in range(10)]
        assert all(abs(labels[part].mean() - labels.mean()) <= 1 / size for part in parts)
        away.append(
            (np.mean([right[part].mean() for part in parts]) - whole) / np.sqrt(whole * (1 - whole) / 10 / size)
        )
    assert abs(np.mean(away)) < 3 / np.sqrt(40)
    assert np.std(away) < 1  # a random part has 1
