from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hwnas.data import DATASETS, ClutteredDigits, Split, open_data
from hwnas.data.base import stable_seed
from hwnas.errors import InvalidValue, UnknownName

pytestmark = pytest.mark.usefixtures("all_test_images")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits() -> ClutteredDigits:
    return ClutteredDigits()


def test_no_digit_is_in_two_splits_and_all_are_used(digits: ClutteredDigits) -> None:
    members = [set(digits.members(split).tolist()) for split in SPLITS]
    for one, other in itertools.combinations(members, 2):
        assert not one & other
    assert set.union(*members) == set(range(1797))
    assert [round(len(part) / 1797, 2) for part in members] == [0.60, 0.15, 0.25]


def test_the_splits_are_stratified(digits: ClutteredDigits) -> None:
    from sklearn.datasets import load_digits

    labels = torch.from_numpy(load_digits().target)
    for split, share in zip(SPLITS, (0.60, 0.15, 0.25), strict=True):
        counts = labels[digits.members(split)].bincount() / labels.bincount()
        assert (counts - share).abs().max() < 0.01


@pytest.mark.parametrize("split", SPLITS)
def test_an_image_is_made_of_digits_of_its_split_only(split: Split) -> None:
    changed, same = ClutteredDigits(), ClutteredDigits()
    others = torch.ones(1797, dtype=torch.bool)
    others[changed.members(split)] = False
    changed._digits[others] = 1.0  # white squares would show if one were drawn
    x, _ = next(changed.batches(split, 32))
    assert torch.equal(x, next(same.batches(split, 32))[0])


@pytest.mark.parametrize("resolution", [24, 28, 32])
def test_shapes_and_types(digits: ClutteredDigits, resolution: int) -> None:
    for x, y in (digits.train_batch(0, 7, resolution, seed=0), *digits.batches("test", resolution, limit=7)):
        assert x.shape == (7, 1, resolution, resolution)
        assert x.dtype == torch.float32
        assert y.shape == (7,)
        assert y.dtype == torch.int64


def test_another_resolution_shows_the_same_images(digits: ClutteredDigits) -> None:
    (large, y), (small, z) = (next(digits.batches("test", side, limit=50)) for side in (32, 16))
    assert torch.equal(y, z)
    # Antialiasing weighs neighbours too: the result is close to a mean over 2x2 pixels but not equal to it.
    pair = torch.stack([torch.nn.functional.avg_pool2d(large, 2).flatten(), small.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.95


def test_a_training_batch_depends_on_its_arguments_only() -> None:
    first, second = ClutteredDigits(), ClutteredDigits()
    second.train_batch(0, 16, 24, seed=9)
    list(second.batches("validation", 32, limit=10))
    torch.manual_seed(123)
    expected, got = first.train_batch(5, 32, 32, seed=1), second.train_batch(5, 32, 32, seed=1)
    assert torch.equal(expected[0], got[0])
    assert torch.equal(expected[1], got[1])


def test_drawing_leaves_the_global_generator_alone(digits: ClutteredDigits) -> None:
    before = torch.get_rng_state()
    digits.train_batch(3, 8, 32, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_steps_and_seeds_give_different_batches(digits: ClutteredDigits) -> None:
    batches = [digits.train_batch(step, 16, 32, seed=seed)[0] for step in (0, 1, 2) for seed in (0, 1, 2)]
    for one, other in itertools.combinations(batches, 2):
        assert not torch.equal(one, other)


def test_the_stable_seed_is_stable() -> None:
    assert stable_seed("train", 0, 0, 5) == 5942392129674765229
    assert 0 <= stable_seed("x") < 2**63


@pytest.mark.parametrize(("split", "size"), [("train", 20_000), ("validation", 4_000), ("test", 10_000)])
def test_sizes(digits: ClutteredDigits, split: Split, size: int) -> None:
    assert digits.size(split) == size


def test_batches_cover_the_split(digits: ClutteredDigits) -> None:
    sizes = [len(y) for _, y in digits.batches("validation", 32, batch_size=1500)]
    assert sizes == [1500, 1500, 1000]


def test_the_order_is_fixed_whatever_the_batch_size_and_the_limit(digits: ClutteredDigits) -> None:
    whole = torch.cat([x for x, _ in digits.batches("test", 32, limit=2300)])
    assert len(whole) == 2300
    again = [x for x, _ in ClutteredDigits().batches("test", 32, limit=1130, batch_size=77)]
    assert [len(x) for x in again] == [77] * 14 + [52]
    assert torch.equal(torch.cat(again), whole[:1130])


def test_a_limit_beyond_the_split_means_all_of_it(digits: ClutteredDigits) -> None:
    assert sum(len(y) for _, y in digits.batches("validation", 32, limit=10**9)) == 4000


def test_changing_a_batch_does_not_change_the_next_pass(digits: ClutteredDigits) -> None:
    x, y = next(digits.batches("validation", 32, limit=20))
    kept = x.clone(), y.clone()
    x.zero_()
    y.zero_()
    again = next(digits.batches("validation", 32, limit=20))
    assert torch.equal(again[0], kept[0])
    assert torch.equal(again[1], kept[1])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_classes_are_about_equally_frequent(digits: ClutteredDigits, split: Split) -> None:
    shares = torch.cat([y for _, y in digits.batches(split, 32)]).bincount(minlength=10) / digits.size(split)
    assert shares.min() > 0.08
    assert shares.max() < 0.12


def test_images_are_normalised(digits: ClutteredDigits) -> None:
    x, _ = digits.train_batch(0, 2000, 32, seed=0)
    assert abs(float(x.mean())) < 0.05
    assert abs(float(x.std()) - 1) < 0.05
    described = digits.transform(32)
    mean, std = described["mean"][0], described["std"][0]  # type: ignore[index]
    pixels = x * std + mean
    assert pixels.min() > -1e-6
    assert pixels.max() < 1 + 1e-6


def test_the_digit_is_in_the_image(digits: ClutteredDigits) -> None:
    """Templates of the classes, slid over the images, tell the label far more often than chance does."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()
    labels = torch.from_numpy(bunch.target)
    templates = torch.stack([images[labels == label].mean(0) for label in range(10)])[:, None]
    templates = torch.nn.functional.interpolate(templates, scale_factor=2.0, mode="bilinear")
    templates -= templates.mean((1, 2, 3), keepdim=True)
    templates /= templates.square().sum((1, 2, 3), keepdim=True).sqrt()
    x, y = next(digits.batches("test", 32, limit=1000, batch_size=1000))
    guess = torch.nn.functional.conv2d(x, templates).amax((2, 3)).argmax(1)
    assert (guess == y).float().mean() > 0.4


def test_the_transform_is_json(digits: ClutteredDigits) -> None:
    described = digits.transform(28)
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "layout": "NCHW",
        "channels": "L",
        "dtype": "float32",
        "resize": {"side": "both", "size": 28, "interpolation": "bilinear", "antialias": True},
        "crop": None,
        "value_range": [0.0, 1.0],
        "mean": [0.16],
        "std": [0.22],
    }


def test_the_fingerprint_tells_datasets_apart() -> None:
    assert ClutteredDigits().fingerprint() == ClutteredDigits(seed=0).fingerprint()
    assert ClutteredDigits().fingerprint() != ClutteredDigits(seed=1).fingerprint()


def test_the_datasets_seed_changes_the_split() -> None:
    one, other = ClutteredDigits(seed=0), ClutteredDigits(seed=1)
    assert not torch.equal(one.members("test"), other.members("test"))
    assert not torch.equal(next(one.batches("test", 32))[0], next(other.batches("test", 32))[0])


def test_wrong_arguments_are_refused(digits: ClutteredDigits) -> None:
    with pytest.raises(InvalidValue, match="must be at least 0, not -1"):
        digits.train_batch(-1, 8, 32, seed=0)
    with pytest.raises(InvalidValue, match="at least 1 image, not 0"):
        digits.train_batch(0, 0, 32, seed=0)
    with pytest.raises(InvalidValue, match="at least 8 pixels, not 4"):
        digits.train_batch(0, 8, 4, seed=0)
    with pytest.raises(InvalidValue, match="at least 8 pixels, not 0"):
        digits.transform(0)
    # Refused at once, not when the first batch is taken.
    with pytest.raises(InvalidValue, match="limit must be at least 1"):
        digits.batches("test", 32, limit=0)
    with pytest.raises(InvalidValue, match="at least 1 image, not -3"):
        digits.batches("test", 32, batch_size=-3)
    with pytest.raises(InvalidValue, match="at least 8 pixels, not 7"):
        digits.batches("test", 7)
    with pytest.raises(UnknownName, match=r"unknown split 'val'.*Known: train, validation, test"):
        digits.batches("val", 32)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match=r"unknown split 'tset'\. Did you mean 'test'"):
        digits.members("tset")  # type: ignore[arg-type]


def test_open_data_by_name() -> None:
    data = open_data("cluttered-digits", seed=3)
    assert data.fingerprint() == ClutteredDigits(seed=3).fingerprint()
    assert (data.name, data.in_channels, data.resolution) == ("cluttered-digits", 1, 32)
    assert data.classes == tuple("0123456789")


def test_open_data_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown dataset 'cifar'.*Known: cluttered-digits, images") as caught:
        open_data("cifar")
    assert caught.value.choices == list(DATASETS)
    with pytest.raises(InvalidValue, match="omit the path"):
        open_data("cluttered-digits", path=tmp_path)
    with pytest.raises(InvalidValue, match="images needs the path"):
        open_data("images")


def test_importing_the_room_imports_no_decoder_and_no_sklearn() -> None:
    program = "import sys, hwnas.data; print(sorted({'sklearn', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
