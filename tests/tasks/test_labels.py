"""Figures and losses of several labels per image against scikit-learn, torch, and counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from several import CLASSES, shapes
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch.nn import functional

from hwnas.data import Augmentation, DataOptions, Images
from hwnas.errors import InvalidValue, UnknownName
from hwnas.tasks import TASKS, check_fit, class_weights, difference_of, figures_of, parse_metric, task_of
from hwnas.tasks.labels import MULTI_LABEL
from hwnas.tasks.losses import BinaryLoss

TASK = MULTI_LABEL.name


def made_up(n: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, classes, generator=generator) < torch.linspace(0.1, 0.6, classes)).float()
    return torch.randn(n, classes, generator=generator) + labels, labels


@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(seed: int) -> None:
    outputs, labels = made_up(150, 4, seed)
    outputs[:, 1] = outputs[:, 1].round()  # ties
    names, truth = ("a", "b", "c", "d"), labels.numpy()
    expected = {
        "mAP": average_precision_score(truth, outputs, average=None),
        "f1": f1_score(truth, outputs >= 0, average=None),
        "auc": roc_auc_score(truth, outputs, average=None),
    }
    for metric, of_each in expected.items():
        found = [parse_metric(metric, names, name, task=TASK)(outputs, labels) for name in names]
        assert found == pytest.approx(of_each.tolist())
        assert parse_metric(metric, names, task=TASK)(outputs, labels) == pytest.approx(of_each.mean())
    probabilities = torch.where(labels > 0, 0.5, 0.49)
    for metric in MULTI_LABEL.metrics:
        one = parse_metric(metric, names, task=TASK)
        assert one(outputs, probabilities) == one(outputs, labels)


def test_a_class_that_no_image_has_is_left_out_of_the_mean() -> None:
    outputs, labels = made_up(80, 3, 0)
    labels[:, 1] = 0
    for metric in MULTI_LABEL.metrics:
        of_all = parse_metric(metric, CLASSES, task=TASK)(outputs, labels)
        of_others = parse_metric(metric, ("a", "b"), task=TASK)(outputs[:, [0, 2]], labels[:, [0, 2]])
        assert of_all == pytest.approx(of_others)
    assert parse_metric("mAP", CLASSES, "row", task=TASK)(outputs, labels) == 0
    assert parse_metric("recall@precision=0.9", CLASSES, "row", task=TASK)(outputs, labels) == 0
    labels[:] = 0
    with pytest.raises(InvalidValue, match="the metric mAP is nan on 80 images"):
        parse_metric("mAP", CLASSES, task=TASK)(outputs, labels)


def test_recall_at_a_precision_ranks_by_the_output() -> None:
    outputs = torch.tensor([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert parse_metric("recall@precision=0.9", ("a", "b"), "a", task=TASK)(outputs, labels) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("text", "task", "error", "words"),
    [
        ("top1", TASK, InvalidValue, "top1 is a metric of images with one class each, .* use one of mAP, f1, auc"),
        ("balanced", TASK, InvalidValue, "these data have images with several labels"),
        ("mAP", "classification", InvalidValue, "mAP is a metric of images with several labels, .* use one of top1"),
        ("f2", TASK, UnknownName, "unknown metric 'f2'"),
        ("recall@precision=0.9", TASK, InvalidValue, "choose it with positive, of column, row, spot"),
        ("f1", "ranking", UnknownName, "unknown task 'ranking'"),
    ],
)
def test_metrics_of_another_task_are_refused(text: str, task: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_metric(text, CLASSES, task=task)


def test_labels_of_another_task_are_refused() -> None:
    outputs, labels = made_up(3, 3, 0)
    with pytest.raises(InvalidValue, match=r"top1 is a metric of images with one class each, not of labels \(3, 3\)"):
        parse_metric("top1", CLASSES)(outputs, labels)
    with pytest.raises(InvalidValue, match=r"mAP is a metric of images with several labels, not of labels \(3,\)"):
        parse_metric("mAP", CLASSES, task=TASK)(outputs, torch.tensor([0, 1, 2]))


def test_the_usual_metrics() -> None:
    assert {name: parse_metric(None, CLASSES, task=name).name for name in TASKS} == {
        "classification": "top1",
        "multi-label": "mAP",
    }


def test_a_function_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def whole(outputs, labels):\n"
        "    return float(((outputs >= 0) == (labels >= 0.5)).all(dim=1).double().mean())\n"
    )
    outputs, labels = made_up(60, 3, 1)
    metric = parse_metric(f"{tmp_path}/mine.py:whole", CLASSES, task=TASK)
    assert metric(2 * labels - 1, labels) == 1
    assert 0 < figures_of(outputs, labels, CLASSES, metric).value < 1


def test_figures_are_those_counted_by_hand() -> None:
    labels = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.6, 0.0], [0.0, 1.0, 0.0], [0.0, 0.4, 0.0]])
    outputs = torch.tensor([[2.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-2.0, 2.0, -2.0], [1.0, 3.0, -3.0]])
    found = figures_of(outputs, labels, CLASSES, parse_metric("f1", CLASSES, task=TASK))
    assert (found.task, found.images, found.accuracy, found.majority, found.confusion) == (TASK, 4, None, None, None)
    column, row, spot = found.classes
    assert (column.images, column.predicted, column.recall, column.precision, column.f1) == (2, 2, 0.5, 0.5, 0.5)
    assert (row.images, row.predicted, row.recall, row.precision, row.f1) == (2, 3, 1, pytest.approx(2 / 3), 0.8)
    assert (spot.images, spot.predicted, spot.recall, spot.precision, spot.f1) == (0, 0, None, None, None)
    assert found.value == pytest.approx((0.5 + 0.8) / 2)
    assert found.baseline == pytest.approx(2 / 3)  # all classes: precision 1/2, recall 1
    assert found.interval.low <= found.value <= found.interval.high
    assert found.words == (
        f"65.00% f1 on 4 images (95% interval {found.interval.words}); all classes for every image: 66.67%; "
        "lowest recall 50.0% of 'column', 100.0% of 'row'"
    )
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_a_constant_answer_has_the_frequencies_as_its_average_precision() -> None:
    outputs, labels = made_up(90, 3, 2)
    found = figures_of(outputs, labels, CLASSES, parse_metric(None, CLASSES, task=TASK))
    assert found.baseline == pytest.approx(float(labels.mean(dim=0).mean()))


def test_a_difference_is_noise_or_not() -> None:
    outputs, labels = made_up(200, 3, 3)
    noise = 0.1 * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
    metric = parse_metric(None, CLASSES, task=TASK)
    blurred, better = (difference_of(metric, other, outputs, labels) for other in (outputs + noise, outputs + labels))
    assert (blurred.test, blurred.distinguishable) == ("paired bootstrap", False)
    assert (better.test, better.distinguishable, better.value > 0) == ("paired bootstrap", True, True)


def test_agreement_is_the_share_of_equal_labels() -> None:
    expected = torch.tensor([[1.0, -1.0], [2.0, 3.0]])
    got = torch.tensor([[0.5, 0.1], [2.0, 3.0]])
    assert MULTI_LABEL.agreement(got, expected) == 0.75
    probabilities = MULTI_LABEL.of_probabilities(got.sigmoid()), MULTI_LABEL.of_probabilities(expected.sigmoid())
    assert MULTI_LABEL.agreement(*probabilities) == 0.75


def test_the_usual_loss_is_the_binary_cross_entropy() -> None:
    outputs, labels = made_up(8, 3, 4)
    expected = functional.binary_cross_entropy_with_logits(outputs, labels)
    torch.testing.assert_close(MULTI_LABEL.loss()(outputs, labels), expected)
    smoothed = functional.binary_cross_entropy_with_logits(outputs, 0.9 * labels + 0.05)
    torch.testing.assert_close(BinaryLoss()(outputs, labels, smoothing=0.1), smoothed)
    weights = torch.tensor([0.5, 1.0, 4.0])
    loss = BinaryLoss(weights=weights)
    expected = functional.binary_cross_entropy_with_logits(outputs, labels, pos_weight=weights)
    torch.testing.assert_close(loss(outputs, labels), expected)
    parts = [loss(outputs[part], labels[part]) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(outputs, labels))


def test_focal_loss_is_equation_4_of_its_paper() -> None:
    outputs, labels = made_up(8, 3, 5)
    p = outputs.sigmoid()
    pt = torch.where(labels > 0, p, 1 - p)
    torch.testing.assert_close(
        BinaryLoss(name="focal", gamma=2.0)(outputs, labels), (-((1 - pt) ** 2) * pt.log()).mean()
    )
    torch.testing.assert_close(BinaryLoss(name="focal", gamma=0.0)(outputs, labels), BinaryLoss()(outputs, labels))
    sure = torch.tensor([[200.0, -200.0]], requires_grad=True)
    BinaryLoss(name="focal", gamma=0.5)(sure, torch.tensor([[1.0, 0.0]])).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_distillation_pulls_towards_the_probabilities_of_the_teacher() -> None:
    outputs, _ = made_up(8, 3, 6)
    taught = MULTI_LABEL.probabilities(outputs)
    torch.testing.assert_close(taught, outputs.sigmoid())
    at = outputs.clone().requires_grad_()
    MULTI_LABEL.distillation(at, taught).backward()
    assert at.grad is not None
    assert at.grad.abs().max() < 1e-7  # the least loss


def test_balanced_weights_give_presence_and_absence_the_same_weight(tmp_path: Path) -> None:
    data = Images(shapes(tmp_path, 100), options=DataOptions(labels="labels.csv", multi_label=True))
    present = data.train_labels().sum(dim=0)
    weights = class_weights("balanced", data)
    assert weights is not None
    torch.testing.assert_close(weights * present, 60 - present)
    check_fit(data, weights="balanced", sampler="shuffled", augmentation=Augmentation())
    with pytest.raises(InvalidValue, match="class_weights has 2 numbers"):
        class_weights([1.0, 2.0], data)
    with pytest.raises(InvalidValue, match="cannot draw each class equally often"):
        check_fit(data, weights=None, sampler="balanced", augmentation=Augmentation())


def test_the_lines_of_a_readme_print_probable_classes(capsys: pytest.CaptureFixture[str]) -> None:
    y = np.array([[2.0, -1.0, 0.5]], np.float32)
    for activated, values in ((False, y), (True, 1 / (1 + np.exp(-y)))):
        exec(task_of(TASK).lines("y[0]", activated=activated), {"np": np, "y": values, "classes": list(CLASSES)})
        assert capsys.readouterr().out == "labels column 88.1%, spot 62.2%\n"
    exec(task_of(TASK).lines("y[0]", activated=False), {"np": np, "y": -9 * np.ones((1, 3)), "classes": list(CLASSES)})
    assert capsys.readouterr().out == "labels none\n"
