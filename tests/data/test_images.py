from __future__ import annotations

import json
import os
import random
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hwnas.data import Images, open_data
from hwnas.data.augment import crop_box
from hwnas.data.base import USUAL
from hwnas.data.photographs import stratified
from hwnas.errors import DataError, InvalidValue

SUFFIXES = ("jpg", "png", "JPEG", "webp", "bmp")


def draw(path: Path, *, colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def fill(root: Path, folder: str, classes: dict[str, int]) -> None:
    """Plain images whose red is unique within the folder, as many a class as asked for."""
    number = 0
    for name, count in classes.items():
        for i in range(count):
            draw(root / folder / name / f"{i}.{SUFFIXES[i % len(SUFFIXES)]}", colour=(number, 100, 50))
            number += 1


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path, "train", {"cat": 30, "dog": 20, "eel": 10})
    fill(tmp_path, "val", {"cat": 2, "dog": 9, "eel": 2})
    return tmp_path


def names(data: Images, split: str) -> set[str]:
    return {name for name, _ in data.files(split)}  # type: ignore[arg-type]


def test_without_a_test_folder_validation_is_held_out_of_training(root: Path) -> None:
    data = Images(root)
    assert [data.size(split) for split in ("train", "validation", "test")] == [54, 6, 13]
    assert not names(data, "train") & names(data, "validation")
    assert len(names(data, "train") | names(data, "validation")) == 60
    assert Counter(label for _, label in data.files("validation")) == {0: 3, 1: 2, 2: 1}
    assert all(name.startswith("val/") for name in names(data, "test"))


def test_with_a_test_folder_each_folder_is_its_split(root: Path) -> None:
    fill(root, "test", {"cat": 1, "dog": 1, "eel": 2})
    data = Images(root)
    assert [data.size(split) for split in ("train", "validation", "test")] == [60, 13, 4]
    assert all(name.startswith("test/") for name in names(data, "test"))


def test_the_val_folder_may_be_called_validation(root: Path) -> None:
    (root / "val").rename(root / "validation")
    assert Images(root).size("test") == 13


def test_every_class_is_held_out_at_least_once_and_at_most_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "train", {"many": 60, "some": 30, "few": 2})
    fill(tmp_path, "val", {"many": 1, "some": 1, "few": 1})
    assert Counter(label for _, label in Images(tmp_path).files("validation")) == {1: 6, 2: 3, 0: 1}
    monkeypatch.setattr("hwnas.data.photographs.HOLD_OUT_MOST", 5)
    assert Counter(label for _, label in Images(tmp_path).files("validation")) == {1: 3, 2: 1, 0: 1}


def test_classes_are_sorted_and_labels_follow_them(root: Path) -> None:
    data = Images(root)
    assert data.classes == ("cat", "dog", "eel")
    assert all(data.classes[label] == name.split("/")[1] for name, label in data.files("train"))


def test_hidden_entries_and_other_files_are_left_out(root: Path) -> None:
    before = Images(root)
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "cat" / "._0.jpg").write_bytes(b"resource fork")
    (root / "train" / "cat" / "notes.txt").write_text("mine")
    (root / "train" / "README").write_text("mine")
    after = Images(root)
    assert after.classes == before.classes
    assert after.files("train") == before.files("train")


def test_the_first_images_have_the_shares_of_the_split(root: Path) -> None:
    data = Images(root)
    labels = torch.cat([y for _, y in data.batches("test", 16, limit=6, batch_size=4)])
    assert labels.bincount().tolist() == [1, 4, 1]  # of 2, 9 and 2
    assert [len(y) for _, y in data.batches("test", 16, batch_size=5)] == [5, 5, 3]


def test_batches_are_in_a_fixed_order_with_the_right_labels(root: Path) -> None:
    one = [torch.cat(part) for part in zip(*Images(root).batches("test", 16), strict=True)]
    other = [torch.cat(part) for part in zip(*Images(root).batches("test", 16, batch_size=3), strict=True)]
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    reds = (one[0][:, 0, 8, 8] * 0.229 + 0.485) * 255
    expected = torch.bucketize(reds.round(), torch.tensor([1.5, 10.5]))  # 2 cats, 9 dogs, 2 eels
    lossless = torch.tensor([name.endswith(("png", "bmp")) for name, _ in Images(root).files("test")])
    assert lossless.sum() == 5
    assert torch.equal(expected[lossless], one[1][lossless])


@pytest.mark.parametrize("resolution", [24, 28, 32])
def test_shapes_and_types(root: Path, resolution: int) -> None:
    data = Images(root)
    for x, y in (data.train_batch(0, 5, resolution, seed=0), *data.batches("train", resolution, limit=5)):
        assert x.shape == (5, 3, resolution, resolution)
        assert x.dtype == torch.float32
        assert x.is_contiguous()
        assert y.shape == (5,)
        assert y.dtype == torch.int64


def gradient(path: Path, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, np.full_like(x, 77)], axis=2).round().astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def test_the_test_transform_is_what_the_manifest_says(tmp_path: Path) -> None:
    """Done again here with torch, from nothing but the description."""
    for folder in ("train", "val", "test"):
        for name in "ab":
            pixels = gradient(tmp_path / folder / name / "0.png", 120, 80)
    data = Images(tmp_path)
    x, _ = next(data.batches("test", 28))
    how = data.transform(28)
    assert json.loads(json.dumps(how)) == how
    assert how["resize"] == {"side": "short", "size": 32, "interpolation": "bilinear", "antialias": True}
    assert how["crop"] == {"position": "centre", "size": 28}
    assert (how["layout"], how["channels"], how["value_range"]) == ("NCHW", "RGB", [0.0, 1.0])
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, size=(32, 48), mode="bilinear", antialias=True)
    image = image[:, :, 2:30, 10:38]
    mean, std = (torch.tensor(how[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    assert ((image - mean) / std - x).abs().max() < 1 / 255 / 0.2  # Pillow rounds to 8 bits


def test_a_training_batch_depends_on_its_arguments_only(root: Path) -> None:
    first, second = Images(root), Images(root)
    second.train_batch(0, 8, 24, seed=5)
    random.seed(1)
    torch.manual_seed(1)
    expected, got = first.train_batch(3, 20, 16, seed=5), second.train_batch(3, 20, 16, seed=5)
    assert torch.equal(expected[0], got[0])
    assert torch.equal(expected[1], got[1])
    assert not torch.equal(first.train_batch(3, 20, 16, seed=6)[0], expected[0])
    assert not torch.equal(first.train_batch(4, 20, 16, seed=5)[0], expected[0])


def test_an_epoch_shows_every_training_image_once(root: Path) -> None:
    data = Images(root)
    expected = Counter(label for _, label in data.files("train"))
    for epoch in range(2):
        steps = range(epoch * 3, epoch * 3 + 3)
        labels = [int(y) for step in steps for y in data.train_batch(step, 18, 8, seed=0)[1]]
        assert Counter(labels) == expected
    across = data.train_batch(0, 108, 8, seed=0)[1]  # a batch may be longer than the epoch
    assert Counter(across.tolist()) == {label: 2 * count for label, count in expected.items()}


def test_training_images_are_cropped_and_flipped(tmp_path: Path) -> None:
    for folder in ("train", "val", "test"):
        for name in "ab":
            gradient(tmp_path / folder / name / "0.png", 64, 64)
    x, _ = Images(tmp_path).train_batch(0, 60, 16, seed=0)
    rightwards = x[:, 0, 8, -1] > x[:, 0, 8, 0]
    assert 15 < int(rightwards.sum()) < 45
    assert (x[:, 1, -1, 8] > x[:, 1, 0, 8]).all()  # never upside down
    widths = (x[:, 0].amax((1, 2)) - x[:, 0].amin((1, 2))) * 0.229
    assert widths.min() < 0.5 < widths.max()


@pytest.mark.parametrize("size", [(500, 375), (64, 64), (1000, 10), (10, 1000), (1, 1)])
def test_random_crops_lie_in_the_image(size: tuple[int, int]) -> None:
    rng = random.Random(0)
    for _ in range(300):
        left, top, right, bottom = crop_box(size, USUAL, rng)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert USUAL.crop_ratio[0] - 1e-9 <= (right - left) / (bottom - top) <= USUAL.crop_ratio[1] + 1e-9
        if max(size) < 1000:
            area = (right - left) * (bottom - top) / (size[0] * size[1])
            assert USUAL.crop_area[0] - 1e-9 <= area <= 1 + 1e-9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_any_mode_becomes_rgb(root: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    for path in (root / "val" / "cat").iterdir():
        path.unlink()
    Image.new(mode, (9, 50)).save(root / "val" / "cat" / f"odd.{suffix}")
    shapes = {x.shape[1:] for x, _ in Images(root).batches("test", 16)}
    assert shapes == {(3, 16, 16)}


def test_the_fingerprint_follows_the_data_not_the_place(root: Path, tmp_path: Path) -> None:
    first = Images(root).fingerprint()
    assert Images(root).fingerprint() == first
    assert Images(root, seed=1).fingerprint() != first
    draw(root / "train" / "cat" / "0.jpg", size=(90, 90))
    changed = Images(root).fingerprint()
    assert changed != first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for folder in ("train", "val"):
        (root / folder).rename(moved / folder)
    assert Images(moved).fingerprint() == changed


def test_the_fingerprint_of_a_vanished_image_is_an_error(root: Path) -> None:
    data = Images(root)
    (root / "val" / "dog" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"val/dog/0\.jpg no longer exists"):
        data.fingerprint()


def test_opening_decodes_nothing_and_a_broken_image_is_named_when_it_is_read(root: Path) -> None:
    (root / "val" / "dog" / "1.png").write_bytes(b"not an image")
    data = Images(root)
    with pytest.raises(DataError, match=r"cannot read .*val/dog/1\.png as an image.*replace it"):
        list(data.batches("test", 16))


def test_a_truncated_training_image_is_named(root: Path) -> None:
    for path in (root / "train" / "eel").glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    data = Images(root)
    with pytest.raises(DataError, match=r"cannot read .*train/eel/\d\.png as an image"):
        data.train_batch(0, data.size("train"), 16, seed=0)


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; an image folder has train/<class>/"):
        open_data("images", path=tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"photo\.jpg is a file, not a folder"):
        Images(tmp_path / "photo.jpg")


def test_no_train_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folder train, it is empty"):
        Images(tmp_path)
    (tmp_path / "training").mkdir()
    with pytest.raises(DataError, match="has no folder train, only training; an image folder has train/<class>/"):
        Images(tmp_path)


def test_no_val_folder_or_two(root: Path) -> None:
    (root / "val").rename(root / "valid")
    with pytest.raises(DataError, match="has no folder val or validation, only train, valid"):
        Images(root)
    (root / "valid").rename(root / "val")
    fill(root, "validation", {"cat": 1})
    with pytest.raises(DataError, match="has both val and validation"):
        Images(root)


def test_no_class_folders(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "loose.png")
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match=r"train has no class folders, only loose\.png"):
        Images(tmp_path)


def test_classes_that_differ_are_listed_in_part(root: Path) -> None:
    for number in range(1000):
        (root / "val" / f"class{number:03}").mkdir()
    with pytest.raises(DataError, match=r"only in val: class000, .*, class019 and 980 more; only in train: none"):
        Images(root)


def test_an_empty_class_folder(root: Path) -> None:
    (root / "train" / "fox").mkdir()
    with pytest.raises(DataError, match=r"the class folder .*train/fox has no images, it is empty"):
        Images(root)
    (root / "train" / "fox" / "film.mp4").touch()
    with pytest.raises(DataError, match=re.escape("only film.mp4; images end in .jpg, .jpeg, .png, .webp, .bmp, .tif")):
        Images(root)


def test_a_single_class(tmp_path: Path) -> None:
    fill(tmp_path, "train", {"cat": 5})
    fill(tmp_path, "val", {"cat": 5})
    with pytest.raises(DataError, match="train has only the class cat; at least 2"):
        Images(tmp_path)


@pytest.mark.parametrize("folder", ["val", "test"])
def test_other_classes_than_in_training(root: Path, folder: str) -> None:
    fill(root, "test", {"cat": 1, "dog": 1, "eel": 1})
    (root / folder / "eel").rename(root / folder / "ell")
    with pytest.raises(DataError, match=f"differ: only in {folder}: ell; only in train: eel"):
        Images(root)


def test_a_message_names_the_first_of_many_classes(root: Path) -> None:
    fill(root, "val", {f"extra{i:02}": 1 for i in range(25)})
    with pytest.raises(DataError, match="extra19 and 5 more; only in train: none"):
        Images(root)


def test_a_class_too_small_to_hold_any_out(root: Path) -> None:
    fill(root, "train", {"fox": 1})
    fill(root, "val", {"fox": 1})
    with pytest.raises(DataError, match=r"train/fox has 1 image; some of each class"):
        Images(root)
    fill(root, "test", {"cat": 1, "dog": 1, "eel": 1, "fox": 1})
    assert Images(root).size("train") == 61


def test_wrong_arguments_are_refused(root: Path) -> None:
    with pytest.raises(InvalidValue, match="at least 8 pixels, not 2"):
        Images(root).batches("test", 2)


@pytest.mark.parametrize("name", ["全角\u3000空白", "thin\u2009space", "naïve"])
def test_a_class_may_have_any_name_that_can_be_written(root: Path, name: str) -> None:
    for folder in ("train", "val"):
        (root / folder / "dog").rename(root / folder / name)
    assert name in Images(root).classes


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_class_whose_name_is_not_utf8(root: Path) -> None:
    for folder in ("train", "val"):
        os.rename(root / folder / "dog", os.fsencode(root / folder) + b"/caf\xe9")  # noqa: PTH104 - pathlib takes no bytes
    with pytest.raises(DataError, match=r"caf\\xe9' is not readable; rename it"):
        Images(root)


@pytest.mark.parametrize("sizes", [(70, 30), (5, 95), (10, 20, 970), (1, 1, 1)])
def test_every_run_of_images_has_the_classes_in_their_shares(sizes: tuple[int, ...]) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    random.Random(3).shuffle(labels)
    order = stratified(labels)
    assert sorted(order) == list(range(len(labels)))
    for length in (10, 33, len(labels) // 2):
        for start in range(0, len(labels) - length, max(1, len(labels) // 25)):
            run = [labels[index] for index in order[start : start + length]]
            for label, size in enumerate(sizes):
                assert abs(run.count(label) - length * size / len(labels)) <= 1.01
