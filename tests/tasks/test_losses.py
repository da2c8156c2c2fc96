from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from hwnas.data import Augmentation, ClutteredDigits, Images
from hwnas.data.augment import preset
from hwnas.errors import InvalidValue
from hwnas.spaces import make_space
from hwnas.supernet import Phase, Supernet, TrainConfig, train
from hwnas.tasks.losses import LabelLoss
from hwnas.tasks.weights import check_counts, check_fit, class_weights


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """8 training images of one class and 2 of another (one of each is held out), each of another gray."""
    root = tmp_path_factory.mktemp("unbalanced")
    for split, counts in {"train": (9, 3), "validation": (2, 2)}.items():
        for name, count in zip(("good", "bad"), counts, strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((32, 32), 20 * i + (128 if name == "bad" else 0), np.uint8)
                pixels[:, :16] //= 2
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return Images(root)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, generator=generator), torch.randint(3, (8,), generator=generator)


def test_balanced_weights_are_those_of_scikit_learn(unbalanced: Images) -> None:
    labels = unbalanced.train_labels().numpy()
    expected = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    found = class_weights("balanced", unbalanced)
    assert found is not None
    assert found.tolist() == pytest.approx(expected.tolist())
    assert sorted(found.tolist()) == pytest.approx([10 / (2 * 8), 10 / (2 * 2)])


def test_weights_that_do_not_fit_the_classes(unbalanced: Images) -> None:
    with pytest.raises(InvalidValue, match=r"class_weights has 3 numbers, but .* has 2 classes"):
        class_weights([1.0, 2.0, 3.0], unbalanced)
    with pytest.raises(InvalidValue, match=r"1 of 2 classes .* no training image \(the first is good\)"):
        check_counts(torch.tensor([4, 0]), unbalanced)


def test_settings_that_the_data_do_not_support_are_found_early(unbalanced: Images) -> None:
    digits, usual = ClutteredDigits(), Augmentation()
    check_fit(unbalanced, weights=None, sampler="balanced", augmentation=preset("any-orientation"))
    with pytest.raises(InvalidValue, match="no balanced sampler"):
        check_fit(digits, weights=None, sampler="balanced", augmentation=usual)
    with pytest.raises(InvalidValue, match="are for photographs"):
        check_fit(digits, weights=None, sampler="shuffled", augmentation=preset("whole"))
    with pytest.raises(InvalidValue, match="has 1 numbers"):
        check_fit(unbalanced, weights=[1.0], sampler="shuffled", augmentation=usual)


def test_the_usual_loss_is_the_cross_entropy_to_the_bit() -> None:
    logits, labels = batch()
    expected = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert torch.equal(LabelLoss()(logits, labels, smoothing=0.1), expected)


def test_a_weighted_loss_is_divided_by_the_images() -> None:
    logits, labels = batch()
    weights = torch.tensor([0.5, 1.0, 4.0])
    loss = LabelLoss(weights=weights)
    expected = functional.cross_entropy(logits, labels, weight=weights, reduction="sum", label_smoothing=0.1) / 8
    torch.testing.assert_close(loss(logits, labels, smoothing=0.1), expected)
    parts = [loss(logits[part], labels[part]) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, labels))


def test_focal_loss_is_equation_5_of_its_paper() -> None:
    logits, labels = batch()
    weights = torch.tensor([0.5, 1.0, 4.0])
    found = LabelLoss(name="focal", gamma=2.0, weights=weights)(logits, labels)
    p = [math.exp(row[y]) / sum(map(math.exp, row)) for row, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    terms = [-weights[y].item() * (1 - q) ** 2 * math.log(q) for q, y in zip(p, labels.tolist(), strict=True)]
    assert found.item() == pytest.approx(sum(terms) / 8, rel=1e-5)
    shares = functional.one_hot(labels, 3).float()
    torch.testing.assert_close(LabelLoss(name="focal", gamma=2.0, weights=weights)(logits, shares), found)
    torch.testing.assert_close(
        LabelLoss(name="focal", gamma=0.0)(logits, labels), functional.cross_entropy(logits, labels)
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_of_a_certain_output_are_finite(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    LabelLoss(name="focal", gamma=gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_weights": "balanced", "sampler": "balanced"}, "corrects for the classes twice"),
        ({"class_weights": [1.0, 0.0]}, "greater than 0"),
        ({"focal_gamma": 1.0}, 'applies to loss = "focal" only'),
        ({"augmentation": "mirror"}, "choose from photograph, whole, any-orientation, none"),
    ],
)
def test_settings_that_contradict_each_other(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        TrainConfig.model_validate(wrong)


def test_defaults_are_left_out_of_facts() -> None:
    facts = TrainConfig().facts(0)
    assert not facts.keys() & {"class_weights", "sampler", "loss", "focal_gamma"}
    chosen = TrainConfig.model_validate({"class_weights": [1, 2], "loss": "focal", "augmentation": "whole"})
    assert TrainConfig.model_validate(chosen.model_dump(mode="json", by_alias=True)) == chosen


class Stop(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("settings", [{"sampler": "balanced", "loss": "focal"}, {"class_weights": "balanced"}])
def test_a_killed_training_resumes_to_the_same_bits(
    unbalanced: Images, tmp_path: Path, settings: dict[str, object]
) -> None:
    space = make_space("mobilenetv3-tiny", in_channels=1, classes=2)
    phase = Phase(name="all", steps=4, learning_rate=0.05)
    usual = TrainConfig(phases=[phase], batch_size=4, checkpoint_every=2)
    config = TrainConfig.model_validate({**usual.model_dump(by_alias=True), **settings})

    def stop(what: str, done: int, total: int, *, unit: str = "", note: str = "") -> None:
        if done == 3 * 4:
            raise Stop

    def result(config: TrainConfig, folder: Path) -> dict[str, torch.Tensor]:
        net = Supernet(space, seed=0)
        train(net, unbalanced, config, seed=0, folder=folder)
        return net.state_dict()

    with pytest.raises(Stop):
        train(Supernet(space, seed=0), unbalanced, config, seed=0, folder=tmp_path / "killed", progress=stop)
    resumed, whole, other = (
        result(each, tmp_path / name) for each, name in ((config, "killed"), (config, "whole"), (usual, "usual"))
    )
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert any(not torch.equal(other[name], whole[name]) for name in whole)
