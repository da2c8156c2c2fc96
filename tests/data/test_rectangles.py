"""Images that are not square: the transform, its description, its Python lines, and augmentation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from hwnas.data import Augmentation, ClutteredDigits, Data, DataOptions, Images, Split, Transform
from hwnas.data.augment import crop_box, photograph, preset
from hwnas.data.geometry import covering
from hwnas.deploy.preprocessing import photograph_lines, step_words
from hwnas.errors import DataError, InvalidValue
from hwnas.tasks.weights import check_fit

SIZES = [(160, 40), (40, 160), (61, 47), (120, 60), (50, 50), (1000, 12)]  # width and height


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of images of all sizes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("cat", "dog"):
            for i, (width, height) in enumerate(SIZES):
                small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
                path = folder / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return folder


HOWS = [
    Transform(),
    Transform(crop=1.0),
    Transform(resize="both"),
    Transform(resize="both", crop=0.9),
    Transform(value_range=(-1, 1)),
]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [(24, 48), (48, 24), (16, 90)])
def test_the_lines_of_a_bundle_prepare_images_bit_for_bit(root: Path, how: Transform, size: tuple[int, int]) -> None:
    data = Images(root, options=DataOptions(transform=how))
    images, _ = next(data.batches("test", size))
    assert images.shape == (2 * len(SIZES), 3, *size)
    given: dict[str, Any] = {"np": np, "Image": Image, "ImageOps": ImageOps}
    exec(photograph_lines(data.transform(size)) or "", given)  # type: ignore[arg-type]
    for image, (name, _) in zip(images, data.files("test"), strict=True):
        prepared = given["prepared"](root / name)[0]
        if (
            name.endswith("/5.png") and how.resize == "short" and size != (16, 90)
        ):  # a strip, of which only the crop is resized
            assert np.abs(prepared - image.numpy()).mean() < 0.05, name
        else:
            assert np.array_equal(prepared, image.numpy()), name


def test_the_description(root: Path) -> None:
    transform = Images(root).transform((48, 192))
    assert transform["resize"] == {"side": "cover", "size": [55, 219], "interpolation": "bilinear", "antialias": True}
    assert transform["crop"] == {"position": "centre", "size": [48, 192]}
    said = "\n".join(step_words(transform))  # type: ignore[arg-type]
    assert "- resize: side cover, size [55, 219], interpolation bilinear, antialias True\n" in said
    assert "A size of two numbers is height and width." in said
    assert "the smallest one that is at least 55 pixels high and 219 pixels wide" in said
    assert "The crop starts at (width - 192) / 2 and (height - 48) / 2, both rounded down." in said
    whole = Images(root, options=DataOptions(transform=Transform(resize="both"))).transform((48, 192))
    assert (whole["resize"], whole["crop"]) == (transform["resize"] | {"side": "both", "size": [48, 192]}, None)  # type: ignore[operator]
    assert Images(root).transform((48, 48)) == Images(root).transform(48)


def test_an_image_of_the_networks_ratio_is_only_scaled(root: Path, tmp_path: Path) -> None:
    """A gradient along the width and one along the height arrive undistorted, whole with a crop of 1."""
    x, y = np.meshgrid(np.linspace(0, 255, 160), np.linspace(0, 255, 40))
    pixels = np.stack([x, y, np.zeros_like(x)], axis=2).round().astype(np.uint8)
    for split in ("train", "val", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    how = Transform(crop=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    [image, _], _ = next(Images(tmp_path, options=DataOptions(transform=how)).batches("test", (20, 80)))
    assert torch.allclose(image[0], torch.linspace(0, 1, 160).view(80, 2).mean(1).expand(20, 80), atol=0.02)
    assert torch.allclose(image[1], torch.linspace(0, 1, 40).view(20, 2).mean(1)[:, None].expand(20, 80), atol=0.03)


@pytest.mark.parametrize("image", [*SIZES, (3, 5000), (17, 17)])
@pytest.mark.parametrize(("rows", "columns"), [(24, 48), (48, 24), (27, 27), (1, 16)])
def test_the_smallest_size_that_covers(image: tuple[int, int], rows: int, columns: int) -> None:
    width, height = covering(image, rows, columns)
    assert width >= columns and height >= rows
    assert width == columns or height == rows
    scale = max(columns / image[0], rows / image[1])
    assert abs(width - image[0] * scale) <= 0.5 and abs(height - image[1] * scale) <= 0.5
    if rows == columns:
        assert (width, height) == tuple(round(side * rows / min(image)) for side in image)


def test_without_a_resize_the_centre_is_cropped(root: Path, tmp_path: Path) -> None:
    data = Images(root, options=DataOptions(transform=Transform(resize="none"), skip=("test/cat/5.png",)))
    with pytest.raises(
        DataError, match=r"has \d+ x \d+ pixels, fewer than the 48 x 24 of the network; resize = 'none'"
    ):
        list(data.batches("test", (24, 48)))
    image = Image.open(root / "test" / "cat" / "0.png")
    made = photograph(image, (24, 48), preset("none"), random.Random(0), native=True)
    assert made.size == (48, 24)


@pytest.mark.parametrize(
    "how", [Augmentation(), Augmentation(colour=0.4, mixup=0.2, cutmix=1.0, erase=1.0), preset("whole")]
)
def test_augmented_images_have_the_shape(root: Path, how: Augmentation) -> None:
    images, _ = Images(root).train_batch(0, 12, (24, 48), seed=0, augmentation=how)
    assert images.shape == (12, 3, 24, 48)
    assert images.isfinite().all()


def test_without_augmentation_a_training_sees_the_test_transform(root: Path) -> None:
    data = Images(root)
    augmented, _ = data.train_batch(0, 12, (24, 48), seed=0, augmentation=preset("none"))
    fixed, _ = next(data.batches("train", (24, 48)))
    assert {image.numpy().tobytes() for image in augmented} == {image.numpy().tobytes() for image in fixed}


@pytest.mark.parametrize("aspect", [4.0, 0.25])
def test_random_crops_have_the_ratio_of_the_network(aspect: float) -> None:
    size = (400, 100) if aspect > 1 else (100, 400)
    for i in range(200):
        left, top, right, bottom = crop_box(size, Augmentation(), random.Random(i), aspect=aspect)
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
        assert 0.74 < (right - left) / (bottom - top) / aspect < 1.34


def test_a_shift_is_a_share_of_each_side() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 80), dtype=np.uint8)
    how = preset("none").model_copy(update={"shift": 0.1})
    moves = {
        np.pad(pixels, ((2, 2), (8, 8)), mode="edge")[2 - y : 22 - y, 8 - x : 88 - x].tobytes()
        for x in range(-8, 9)
        for y in range(-2, 3)
    }
    image = Image.fromarray(pixels)
    drawn = {np.asarray(photograph(image, (20, 80), how, random.Random(i), native=True)).tobytes() for i in range(900)}
    assert drawn == moves


def test_quarter_turns_need_squares(root: Path) -> None:
    data, how = Images(root), preset("any-orientation")
    with pytest.raises(
        InvalidValue, match=r"quarter_turns .* needs square ones; those of this space have 24 x 48 pixels"
    ):
        data.train_batch(0, 4, (24, 48), seed=0, augmentation=how)
    with pytest.raises(InvalidValue, match="quarter_turns"):
        check_fit(data, weights=None, sampler="shuffled", augmentation=how, resolution=(24, 48))
    check_fit(data, weights=None, sampler="shuffled", augmentation=how, resolution=24)
    assert data.train_batch(0, 4, (24, 24), seed=0, augmentation=how)[0].shape == (4, 3, 24, 24)


def test_digits_are_resized() -> None:
    digits = ClutteredDigits()
    square, wide = (next(digits.batches("test", size, limit=4))[0] for size in (32, (32, 64)))
    assert wide.shape == (4, 1, 32, 64)
    twice = torch.nn.functional.interpolate(square, size=(32, 64), mode="bilinear", antialias=True)
    assert torch.allclose(wide, twice, atol=1e-5)
    assert digits.transform((32, 64))["resize"]["size"] == [32, 64]  # type: ignore[index]
    assert torch.equal(next(digits.batches("test", (32, 32), limit=4))[0], square)


class Squares(ClutteredDigits):
    rectangles = False
    asked: list[object]

    def _batches(self, split: Split, resolution: Any, count: int, batch_size: int) -> Any:
        self.asked = [resolution]
        return super()._batches(split, resolution, count, batch_size)


def test_a_dataset_of_squares_refuses_others() -> None:
    data: Data = Squares()
    message = r"cluttered-digits has square images, but this space takes images of 16 x 32 pixels \(height x width\)"
    for ask in (
        data.transform,
        lambda size: data.batches("test", size),
        lambda size: data.train_batch(0, 2, size, seed=0),
    ):
        with pytest.raises(InvalidValue, match=message):
            ask((16, 32))
    data.batches("test", (16, 16))
    assert data.asked == [16]  # type: ignore[attr-defined]
    with pytest.raises(InvalidValue, match=r"must be at least 8 pixels, not 4 x 32 \(height x width\)"):
        data.transform((4, 32))
