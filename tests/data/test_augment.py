from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pydantic
import pytest
import torch
from PIL import Image

from hwnas.data import Augmentation, ClutteredDigits, Images
from hwnas.data.augment import PRESETS, mixed_and_erased, photograph, preset
from hwnas.errors import InvalidValue

PLAIN = Augmentation(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)


def batch(n: int = 8, side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of one value each, their number from 1."""
    images = torch.arange(1.0, n + 1).view(n, 1, 1, 1).expand(n, 3, side, side).contiguous()
    return images, torch.arange(n) % 4


def changed(how: Augmentation, *, first: int = 0, n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = batch(n)
    return mixed_and_erased(images, labels, 4, how, seed=0, first=first)


def test_nothing_asked_for_changes_nothing() -> None:
    images, labels = batch()
    same, told = mixed_and_erased(images, labels, 4, PLAIN, seed=0, first=0)
    assert same is images
    assert told is labels


def test_mixup_blends_pairs_and_their_labels() -> None:
    images, labels = changed(Augmentation(mixup=1.0))
    for i in range(0, 8, 2):
        one, other = images[i, 0, 0, 0].item(), images[i + 1, 0, 0, 0].item()
        assert one + other == pytest.approx(i + 1 + i + 2)
        kept = (i + 2) - one  # of the first image, whose value is 1 less than its neighbour's
        assert 0 < kept < 1
        assert labels[i, i % 4].item() == pytest.approx(kept, abs=1e-5)
        assert labels[i + 1, i % 4].item() == pytest.approx(1 - kept, abs=1e-5)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(8))
    assert len({round(value, 3) for value in labels.max(dim=1).values.tolist()}) > 2  # pairs have their own shares


def test_cutmix_puts_a_box_of_the_neighbour_and_labels_its_area() -> None:
    images, labels = changed(Augmentation(cutmix=1.0))
    for i in range(8):
        own, other = i + 1, (i ^ 1) + 1
        values, counts = images[i, 0].unique(return_counts=True)
        shares = dict(zip(values.tolist(), (counts / 256).tolist(), strict=True))
        assert set(shares) <= {own, other}
        assert labels[i, i % 4].item() == pytest.approx(shares.get(own, 0.0), abs=1e-5)
        box = (images[i, 0] == other).nonzero()
        if len(box):
            height, width = (box.max(dim=0).values - box.min(dim=0).values + 1).tolist()
            assert height * width == len(box)


def test_with_both_some_pairs_are_blended_and_some_cut() -> None:
    images, _ = changed(Augmentation(mixup=1.0, cutmix=1.0), n=32)
    blended = [bool((image != image.round()).any()) for image in images]
    assert any(blended)
    assert not all(blended)


def test_erasing_blanks_a_box_of_some_images() -> None:
    images, labels = changed(Augmentation(erase=0.5), n=64)
    erased = [(image == 0).float().mean().item() for image in images]
    assert 16 < sum(share > 0 for share in erased) < 48
    assert max(erased) < 0.5
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}, {"erase": 0.5}, {"mixup": 0.2, "cutmix": 1.0}])
def test_a_part_of_a_batch_is_what_it_is_in_the_whole(how: dict[str, float]) -> None:
    whole, labels = changed(Augmentation(**how))
    images, given = batch()
    half, told = mixed_and_erased(images[4:], given[4:], 4, Augmentation(**how), seed=0, first=4)
    assert torch.equal(half, whole[4:])
    assert torch.equal(told, labels[4:])


def test_the_parts_of_a_training_batch() -> None:
    data, how = ClutteredDigits(), Augmentation(mixup=0.5, erase=0.5)
    whole, labels = data.train_batch(3, 24, 24, seed=1, augmentation=how)
    parts = [data.train_batch(3, 24, 24, seed=1, augmentation=how, part=(i, 3)) for i in range(3)]
    assert torch.equal(torch.cat([x for x, _ in parts]), whole)
    assert torch.equal(torch.cat([y for _, y in parts]), labels)
    with pytest.raises(InvalidValue, match="24 images cannot be split evenly among 5"):
        data.train_batch(3, 24, 24, seed=1, part=(0, 5))


def test_digits_are_no_photographs() -> None:
    with pytest.raises(InvalidValue, match=r"flip, colour, and the presets that set them, are for"):
        ClutteredDigits().train_batch(0, 8, 32, seed=0, augmentation=Augmentation(colour=0.4))


def test_a_photograph_in_other_colours_and_mirrored() -> None:
    image = Image.new("RGB", (32, 32), (120, 100, 80))
    image.paste((255, 0, 0), (0, 0, 16, 32))
    same = photograph(image, 32, PLAIN, random.Random(0))
    assert same.tobytes() == image.tobytes()
    mirrored = photograph(image, 32, PLAIN.model_copy(update={"flip": 1.0}), random.Random(0))
    assert mirrored.getpixel((31, 0)) == (255, 0, 0)
    coloured = {
        photograph(image, 32, PLAIN.model_copy(update={"colour": 0.4}), random.Random(i)).getpixel((31, 0))
        for i in range(5)
    }
    assert len(coloured) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1.5},
        {"colour": 1.0},
        {"mixup": -1.0},
        {"crop_area": [0.5]},
        {"blur": 1},
        {"crop_area": [-0.5, 1.0]},
        {"crop_area": [0.5, 1.5]},
        {"crop_area": [0.9, 0.5]},
        {"crop_ratio": [0.0, 1.0]},
        {"crop_ratio": [1.0, math.inf]},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(wrong))):
        Augmentation.model_validate(wrong)


def test_pairs_are_not_torn_apart() -> None:
    data, how = ClutteredDigits(), Augmentation(cutmix=1.0)
    with pytest.raises(
        InvalidValue, match="each of 2 processes would get 3 of 6: choose a batch that is a multiple of 4"
    ):
        data.train_batch(0, 6, 24, seed=0, augmentation=how, part=(0, 2))
    assert len(data.train_batch(0, 6, 24, seed=0, part=(0, 2))[0]) == 3


def test_presets_do_not_crop_and_keep_defaults_out_of_facts() -> None:
    assert preset("photograph") == Augmentation()
    assert Augmentation().model_dump().keys().isdisjoint({"crop", "flip_vertical", "quarter_turns", "shift"})
    assert [name for name in PRESETS if preset(name).crop] == ["photograph"]


def test_no_augmentation_gives_the_test_transform(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (40, 30), np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    data = Images(tmp_path)
    augmented, _ = data.train_batch(0, 4, 24, seed=0, augmentation=preset("none"))
    fixed, _ = next(data.batches("train", 24))
    assert {image.numpy().tobytes() for image in augmented} == {image.numpy().tobytes() for image in fixed}


def test_any_orientation_gives_all_symmetries_of_the_square() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    how = preset("any-orientation").model_copy(update={"shift": 0.0})
    drawn = [photograph(Image.fromarray(pixels), 8, how, random.Random(i), native=True) for i in range(400)]
    expected = {np.rot90(each, k).tobytes() for each in (pixels, pixels[:, ::-1]) for k in range(4)}
    counts = Counter(np.asarray(image).tobytes() for image in drawn)
    assert counts.keys() == expected
    assert min(counts.values()) > 25


def test_a_shift_repeats_the_edge() -> None:
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8)
    how = preset("none").model_copy(update={"shift": 0.1})
    moves = {
        np.pad(pixels, 2, mode="edge")[2 - y : 22 - y, 2 - x : 22 - x].tobytes(): (x, y)
        for x in range(-2, 3)
        for y in range(-2, 3)
    }
    image = Image.fromarray(pixels)
    drawn = {np.asarray(photograph(image, 20, how, random.Random(i), native=True)).tobytes() for i in range(300)}
    assert drawn == moves.keys()
