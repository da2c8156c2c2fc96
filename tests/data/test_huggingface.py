from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from hwnas.data import DataOptions, HuggingFace, Transform, open_data
from hwnas.errors import DataError, InvalidValue

datasets = pytest.importorskip("datasets")

Rows = dict[str, list[object]]
CLASSES = ["cat", "dog", "eel"]


def rows(count: int, *, red: int = 0) -> Rows:
    images = [Image.new("RGB", (40, 30), (red + i, 100, 50)) for i in range(count)]
    return {"image": list(images), "label": [i % 3 for i in range(count)]}


def features() -> object:
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})


def save(path: Path, **splits: Rows) -> Path:
    made = {name: datasets.Dataset.from_dict(found, features=features()) for name, found in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(path))
    return path


def reds(data: HuggingFace, split: str) -> list[int]:
    """The red of each image, in the order of `batches`, undone from its normalisation."""
    images = torch.cat([x for x, _ in data.batches(split, 16)])  # type: ignore[arg-type]
    return (images[:, 0, 8, 8] * data.std[0] + data.mean[0]).mul(255).round().int().tolist()


def test_each_split_is_read(tmp_path: Path) -> None:
    data = HuggingFace(save(tmp_path / "d", train=rows(12), validation=rows(6, red=50), test=rows(9, red=100)))
    assert data.classes == tuple(CLASSES)
    assert [data.size(split) for split in ("train", "validation", "test")] == [12, 6, 9]
    assert sorted(reds(data, "validation")) == list(range(50, 56))
    for split, red in (("train", 0), ("test", 100)):
        for (_, labels), found in zip([next(iter(data.batches(split, 16)))], [reds(data, split)], strict=True):
            assert labels.tolist() == [(value - red) % 3 for value in found]
    assert isinstance(open_data("huggingface", path=tmp_path / "d"), HuggingFace)


@pytest.mark.parametrize("name", ["validation", "val", "valid", "test"])
def test_with_one_other_split_validation_is_held_out_of_training(name: str, tmp_path: Path) -> None:
    data = HuggingFace(save(tmp_path / "d", train=rows(60), **{name: rows(6, red=100)}))
    assert [data.size(split) for split in ("train", "validation", "test")] == [54, 6, 6]
    assert not set(reds(data, "train")) & set(reds(data, "validation"))
    assert Counter(y.item() for _, labels in data.batches("validation", 16) for y in labels) == {0: 2, 1: 2, 2: 2}
    assert sorted(reds(data, "test")) == list(range(100, 106))


def test_training_images_are_augmented_and_follow_the_seed(tmp_path: Path) -> None:
    data = HuggingFace(save(tmp_path / "d", train=rows(30), test=rows(3)))
    images, labels = data.train_batch(0, 8, 24, seed=1)
    assert images.shape == (8, 3, 24, 24)
    again = HuggingFace(tmp_path / "d").train_batch(0, 8, 24, seed=1)
    assert torch.equal(images, again[0])
    assert torch.equal(labels, again[1])


def test_the_fingerprint_follows_the_contents(tmp_path: Path) -> None:
    one = HuggingFace(save(tmp_path / "one", train=rows(12), test=rows(3)))
    assert one.fingerprint() == HuggingFace(tmp_path / "one").fingerprint()
    assert one.fingerprint() != HuggingFace(tmp_path / "one", seed=1).fingerprint()
    other = HuggingFace(save(tmp_path / "other", train=rows(15), test=rows(3)))
    assert one.fingerprint() != other.fingerprint()


def _single(path: Path) -> None:
    datasets.Dataset.from_dict(rows(3), features=features()).save_to_disk(str(path))


def _without_names(path: Path) -> None:
    plain = {"image": datasets.Image(), "label": datasets.Value("int64")}
    made = datasets.Dataset.from_dict(rows(6), features=datasets.Features(plain))
    datasets.DatasetDict(train=made, test=made).save_to_disk(str(path))


def _text(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("hello")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not a folder"),
        (_text, "cannot read .*is a split empty"),
        (_single, "contains a single split"),
        (_without_names, r"columns image \(Image\), label \(Value\)"),
        (lambda path: save(path, train=rows(6)), "has the splits train; it needs train, and validation or test"),
        (lambda path: save(path, train=rows(6), val=rows(3), valid=rows(3)), "has the splits train, val, valid"),
        (lambda path: save(path, train=rows(2), test=rows(3)), "cat has 1 image; .* needs at least 2"),
    ],
    ids=["nothing", "text", "one split", "no names", "train alone", "twice", "too few"],
)
def test_other_forms_are_refused(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "d")
    with pytest.raises(DataError, match=message):
        HuggingFace(tmp_path / "d")


def test_an_image_without_a_label_and_a_label_without_an_image(tmp_path: Path) -> None:
    broken = rows(6)
    broken["label"][4] = None
    with pytest.raises(DataError, match=r"image 4 of .*train has the invalid label (None|-1)"):
        HuggingFace(save(tmp_path / "a", train=broken, test=rows(3)))
    empty = rows(9)
    empty["image"][4] = None
    data = HuggingFace(save(tmp_path / "b", train=rows(9), test=empty))
    with pytest.raises(DataError, match=r"image 4 of .*test is empty"):
        list(data.batches("test", 16))


def test_the_path_is_needed() -> None:
    with pytest.raises(InvalidValue, match=r"DatasetDict\.save_to_disk"):
        open_data("huggingface")


@pytest.mark.parametrize("empty", ["train", "validation", "test"])
def test_an_empty_split(empty: str, tmp_path: Path) -> None:
    counts = {"train": 8, "validation": 4, "test": 4, empty: 0}
    with pytest.raises(DataError, match="empty"):
        HuggingFace(save(tmp_path / "d", **{name: rows(count) for name, count in counts.items()}))


def test_channels_and_transform(tmp_path: Path) -> None:
    path = save(tmp_path / "d", train=rows(12), test=rows(6))
    how = DataOptions(channels=1, transform=Transform(resize="both", mean=(0.5,), std=(0.5,)))
    data = open_data("huggingface", path=path, options=how)
    x, _ = next(data.batches("test", 16))
    assert x.shape == (6, 1, 16, 16)
    assert data.transform(16)["crop"] is None
    usual = HuggingFace(path)
    assert usual.in_channels == 3
    assert data.fingerprint() != usual.fingerprint()
    assert data.split_fingerprint("train") != usual.split_fingerprint("train") != usual.split_fingerprint("test")
    assert data.recorded_options() == how.recorded()
    with pytest.raises(InvalidValue, match="huggingface takes only channels, transform; omit split"):
        open_data("huggingface", path=path, options=DataOptions(split=(70, 15, 15)))


def test_a_class_name_that_no_split_uses_stays_a_class(tmp_path: Path) -> None:
    two = {"image": rows(8)["image"], "label": [i % 2 for i in range(8)]}
    data = HuggingFace(save(tmp_path / "d", train=two, test=two))
    assert data.classes == tuple(CLASSES)
    assert [data.size(split) for split in ("train", "validation", "test")] == [6, 2, 8]
    assert Counter(y.item() for _, labels in data.batches("validation", 16) for y in labels) == {0: 1, 1: 1}
