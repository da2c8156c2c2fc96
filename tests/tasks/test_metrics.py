"""Metrics against their definitions, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from hwnas.errors import InvalidValue, UnknownName
from hwnas.tasks.classification import CLASSIFICATION, log_odds
from hwnas.tasks.metrics import TOP1, difference_of, parse_metric

CLASSES = ("good", "defective")


def made_up(n: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    outputs = torch.randn(n, classes, generator=generator)
    outputs[torch.arange(n), labels] += 0.8
    return outputs, labels


@pytest.mark.parametrize("seed", range(5))
def test_figures_of_two_classes_are_those_of_their_definitions(seed: int) -> None:
    outputs, labels = made_up(200, 2, seed)
    told = outputs.argmax(dim=1)
    tp, fp = int(((told == 1) & (labels == 1)).sum()), int(((told == 1) & (labels == 0)).sum())
    fn, tn = int(((told == 0) & (labels == 1)).sum()), int(((told == 0) & (labels == 0)).sum())
    assert TOP1(outputs, labels) == pytest.approx((tp + tn) / 200)
    assert parse_metric("balanced", CLASSES)(outputs, labels) == pytest.approx((tp / (tp + fn) + tn / (tn + fp)) / 2)
    assert parse_metric("f1", CLASSES, "defective")(outputs, labels) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    scores = outputs[:, 1] - outputs[:, 0]
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    area = float(((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean())
    assert parse_metric("auc", CLASSES, "defective")(outputs, labels) == pytest.approx(area)
    best = max(
        recall
        for threshold in scores
        for chosen in [scores >= threshold]
        for recall, precision in [
            (int(labels[chosen].sum()) / int(labels.sum()), int(labels[chosen].sum()) / int(chosen.sum()))
        ]
        if precision >= 0.9
    )
    assert parse_metric("recall@precision=0.9", CLASSES, "defective")(outputs, labels) == pytest.approx(best)


def test_without_a_class_figures_are_means_over_classes() -> None:
    outputs, labels = made_up(300, 4, 1)
    names = ("a", "b", "c", "d")
    for metric in ("f1", "auc"):
        of_each = [parse_metric(metric, names, name)(outputs, labels) for name in names]
        assert parse_metric(metric, names)(outputs, labels) == pytest.approx(np.mean(of_each))


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_are_those_of_scikit_learn(classes: int) -> None:
    outputs, labels = made_up(120, classes, 7)
    outputs[:, 1] = outputs[:, 1].round()  # ties
    chosen, names = outputs.argmax(dim=1), tuple(map(str, range(classes)))
    assert parse_metric("balanced", names)(outputs, labels) == pytest.approx(balanced_accuracy_score(labels, chosen))
    assert parse_metric("f1", names)(outputs, labels) == pytest.approx(f1_score(labels, chosen, average="macro"))
    assert parse_metric("f1", names, "1")(outputs, labels) == pytest.approx(
        f1_score(labels == 1, chosen == 1, zero_division=0)
    )
    area = roc_auc_score(labels == 1, log_odds(outputs, 1))
    assert parse_metric("auc", names, "1")(outputs, labels) == pytest.approx(area)


def test_the_majority_class_alone_is_no_good_answer() -> None:
    labels = torch.tensor([0] * 69 + [1] * 31)
    outputs = torch.tensor([[1.0, 0.0]]).repeat(100, 1)
    assert TOP1(outputs, labels) == pytest.approx(0.69)
    assert parse_metric("balanced", CLASSES)(outputs, labels) == 0.5
    assert parse_metric("f1", CLASSES, "defective")(outputs, labels) == 0
    assert parse_metric("auc", CLASSES, "defective")(outputs, labels) == 0.5
    assert parse_metric("recall@precision=0.9", CLASSES, "defective")(outputs, labels) == 0


def test_log_odds_are_those_of_the_softmax() -> None:
    outputs, _ = made_up(20, 5, 2)
    shares = outputs.double().softmax(dim=1)[:, 3]
    np.testing.assert_allclose(log_odds(outputs, 3), torch.log(shares / (1 - shares)).numpy())


@pytest.mark.long
def test_the_interval_covers_the_value_of_all_images() -> None:
    """95% intervals from parts of 150 of 6,000 images hold the value of all of them in at least 85 of 100 cases."""
    outputs, labels = made_up(6000, 2, 3)
    metric = parse_metric("f1", CLASSES, "defective")
    whole, inside = metric(outputs, labels), 0
    for part in range(40):
        rows = slice(150 * part, 150 * (part + 1))
        low, high = metric.interval(outputs[rows], labels[rows])
        assert low < high
        inside += low <= whole <= high
    assert inside >= 34


def test_a_function_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def least(outputs, labels):\n"
        "    told = outputs.argmax(dim=1)\n"
        "    return min(float((told[labels == one] == one).double().mean()) for one in labels.unique())\n"
        "def wrong(outputs, labels):\n"
        "    return 7\n"
    )
    outputs, labels = made_up(100, 2, 4)
    least = parse_metric(f"{tmp_path}/mine.py:least", CLASSES)(outputs, labels)
    assert 0 < least <= TOP1(outputs, labels)
    with pytest.raises(InvalidValue, match=r"is 7\.0 on 100 images; it must be between 0 and 1"):
        parse_metric(f"{tmp_path}/mine.py:wrong", CLASSES)(outputs, labels)


@pytest.mark.parametrize(
    ("text", "positive", "error", "words"),
    [
        ("f2", None, UnknownName, "unknown metric 'f2'"),
        ("f1", "bad", UnknownName, "unknown class 'bad'"),
        ("recall@precision=0.9", None, InvalidValue, "choose it with positive, of good, defective"),
        ("recall@precision=9", "defective", InvalidValue, "should be recall@precision=0.9, with a number above 0"),
        ("balanced", "defective", InvalidValue, "leave positive out"),
    ],
)
def test_what_is_refused(text: str, positive: str | None, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_metric(text, CLASSES, positive)


def test_every_metric_is_1_for_a_perfect_classifier() -> None:
    labels = torch.arange(60) % 3
    outputs = torch.nn.functional.one_hot(labels, 3).float()
    for name in CLASSIFICATION.metrics:
        assert parse_metric(name, ("a", "b", "c"))(outputs, labels) == 1


def test_a_changed_function_is_another_metric(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    before, after = "def share(outputs, labels):\n    return 0.5\n", "def share(outputs, labels):\n    return 0.25\n"
    identities = []
    for text in (before, after, before):
        file.write_text(text)
        identities.append(parse_metric(f"{file}:share", CLASSES).identity)
    assert identities[0] == identities[2] != identities[1]
    assert parse_metric("f1", CLASSES, "defective").identity == "f1 of defective"


def users(folder: Path, body: str) -> str:
    """A metric of a file with these lines in its function."""
    path = folder / "own.py"
    path.write_text("import numpy as np\n\n\ndef own(outputs, labels):\n    " + body.replace("\n", "\n    ") + "\n")
    return f"{path}:own"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('no such thing')", r"own.py:own fails on 8 images: KeyError: 'no such thing'"),
        ("return None", r"own.py:own fails on 8 images: TypeError.*should return a number between 0 and 1"),
        ("return 'a'", r"own.py:own"),
    ],
)
def test_a_function_that_fails_is_named_at_once(tmp_path: Path, body: str, said: str) -> None:
    text = users(tmp_path, body)
    with pytest.raises(InvalidValue, match=said):
        parse_metric(text, CLASSES)(*made_up(20, 2, 0))


def test_arrays_of_one_number_are_numbers(tmp_path: Path) -> None:
    for body in ("return np.array([0.5])", "return labels.double().mean() * 0 + 0.5", "return np.float32(0.5)"):
        assert parse_metric(users(tmp_path, body), CLASSES)(*made_up(20, 2, 0)) == 0.5
        (tmp_path / "own.py").unlink()


def test_intervals_of_functions_that_are_undefined_on_some_samples(tmp_path: Path) -> None:
    """Precision of a class that few images are predicted to have; and a correlation, which may be below 0."""
    outputs = torch.tensor([[1.0, 0.0]] * 30 + [[0.0, 1.0]] * 1)
    labels = torch.tensor([0] * 20 + [1] * 11)
    precision = "told = outputs.argmax(1) == 1\nreturn int((told & (labels == 1)).sum()) / int(told.sum())"
    metric = parse_metric(users(tmp_path, precision), CLASSES)
    assert metric(outputs, labels) == 1.0
    assert metric.interval(outputs, labels) == (1.0, 1.0)
    assert difference_of(metric, outputs, outputs, labels).value == 0
    never = torch.tensor([[1.0, 0.0]] * 31)
    with pytest.raises(InvalidValue, match="ZeroDivisionError"):
        metric(never, labels)
    (tmp_path / "own.py").unlink()
    kappa = "from sklearn.metrics import cohen_kappa_score\nreturn cohen_kappa_score(labels, outputs.argmax(1))"
    metric = parse_metric(users(tmp_path, kappa), CLASSES)
    outputs, labels = made_up(60, 2, 1)
    low, high = metric.interval(outputs * 0.3 + torch.randn(60, 2, generator=torch.Generator().manual_seed(2)), labels)
    assert 0 <= low < high <= 1


def test_probabilities_have_the_scores_of_their_outputs() -> None:
    outputs, labels = made_up(300, 4, 3)
    back = CLASSIFICATION.of_probabilities(outputs.softmax(1))
    for name, positive in (("auc", None), ("auc", "c"), ("recall@precision=0.5", "c"), ("top1", None)):
        metric = parse_metric(name, tuple("abcd"), positive)
        assert metric(back, labels) == pytest.approx(metric(outputs, labels), abs=1e-6)
    sure = CLASSIFICATION.of_probabilities(torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.isfinite(sure).all()
