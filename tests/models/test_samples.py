"""Samples of a model's inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hwnas.errors import DataError
from hwnas.models.samples import random_samples, read_samples
from hwnas.runner.signature import BadFeeds, Signature, Value, packed, unpacked

IMAGE = Signature((Value("x", (1, 3, 8, 10)),), (Value("y", (1, 4)),))
TEXT = Signature((Value("ids", (1, 6), "int64"), Value("rate", (), "int64")), (Value("y", (1, 2)),))


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_random_samples_have_the_types_of_the_inputs() -> None:
    samples = random_samples(TEXT, count=3)
    assert (len(samples.feeds), samples.random) == (3, True)
    assert {name: (x.shape, str(x.dtype)) for name, x in samples.feeds[0].items()} == {
        "ids": ((1, 6), "int64"),
        "rate": ((), "int64"),
    }
    assert set(np.unique([each["ids"] for each in samples.feeds])) <= {0, 1}


@pytest.mark.parametrize(("shape", "count"), [((1, 3, 8, 10), 1), ((5, 3, 8, 10), 5), ((5, 1, 3, 8, 10), 5)])
def test_one_array_or_many(tmp_path: Path, shape: tuple[int, ...], count: int) -> None:
    samples = read_samples(save(tmp_path / "s.npz", x=np.zeros(shape, np.float32)), IMAGE)
    assert [each["x"].shape for each in samples.feeds] == [(1, 3, 8, 10)] * count


def test_an_input_that_is_the_same_in_every_sample(tmp_path: Path) -> None:
    path = save(tmp_path / "s.npz", ids=np.ones((4, 6), np.int32), rate=np.int64(16_000), labels=[0, 1, 1, 0])
    samples = read_samples(path, TEXT, limit=3)
    assert [int(each["rate"]) for each in samples.feeds] == [16_000] * 3
    assert str(samples.feeds[0]["ids"].dtype) == "int64"
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(1)}, "has the arrays z; the inputs are x"),
        ({"x": np.zeros((1, 3, 9, 9), np.float32)}, r"x of the shape \[1, 3, 9, 9\]; it should be \[1, 3, 8, 10\]"),
        ({"x": np.full((1, 3, 8, 10), np.nan, np.float32)}, "sample 0 of .* has NaN or infinite values in x"),
        ({"x": np.zeros((2, 3, 8, 10), np.float32), "labels": [1]}, "has 2 samples and 1 labels"),
        ({"x": np.zeros((1, 3, 8, 10), np.complex64)}, "has x as complex64; the input is float32"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_samples(save(tmp_path / "s.npz", **arrays), IMAGE)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_bytes(b"x")
    for name in ("s.npz", "other.npz"):
        with pytest.raises(DataError, match="cannot read the samples"):
            read_samples(tmp_path / name, IMAGE)


def test_images_are_resized_and_normalised(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    samples = read_samples(tmp_path, IMAGE)
    assert [each["x"].shape for each in samples.feeds] == [(1, 3, 8, 10)] * 2
    assert samples.feeds[0]["x"][0, 0, 0, 0] == pytest.approx((1 - 0.485) / 0.229)
    with pytest.raises(DataError, match="images need a model with one float32 input"):
        read_samples(tmp_path, TEXT)
    (tmp_path / "c.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"cannot read .*c.png as an image"):
        read_samples(tmp_path, IMAGE)


def test_arrays_as_messages() -> None:
    arrays = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": np.array(True), "c": np.zeros((0, 2), np.float16)}
    found = unpacked(*packed(arrays))
    for name, array in arrays.items():
        assert (found[name] == array).all()
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
    with pytest.raises(BadFeeds):
        unpacked([["a", "float32", [3]]], b"")
    with pytest.raises(BadFeeds):
        unpacked([["a", "object", [1]]], bytes(8))


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "the program has the inputs ids, rate, not none"),
        (
            {"ids": np.zeros((1, 6), np.int64), "rate": np.zeros(1, np.int64)},
            r"rate: int64 \[\] was given as int64 \[1\]",
        ),
        ({"ids": np.zeros((1, 6), np.int32), "rate": np.int64(1)}, r"ids: int64 \[1, 6\] was given as int32 \[1, 6\]"),
    ],
)
def test_inputs_that_do_not_fit_a_signature(feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(BadFeeds, match=message):
        TEXT.checked(feeds)
