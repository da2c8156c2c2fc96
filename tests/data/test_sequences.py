"""Datasets of tokens."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.data import Augmentation, DataOptions, open_data
from hwnas.data.listops import TOKENS, ListOps, evaluated
from hwnas.data.pathfinder import Pathfinder
from hwnas.data.sequences import PADDING, START, TokenData
from hwnas.errors import DataError, InvalidValue
from hwnas.testing.datasets import TokenSuite


class TestListOps(TokenSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TokenData:
        return ListOps(length=64)


class TestPathfinder(TokenSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TokenData:
        return Pathfinder()


class TestDigitPixels(TokenSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> TokenData:
        found = open_data("pixel-digits")
        assert isinstance(found, TokenData)
        return found


class TestTexts(TokenSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, tmp_path_factory: pytest.TempPathFactory) -> TokenData:
        folder = tmp_path_factory.mktemp("texts")
        for label, word in (("cat", "miaow"), ("dog", "woof")):
            (folder / label).mkdir()
            for i in range(20):
                (folder / label / f"{i}.txt").write_text(f"{word} {i} {word * (i % 3)}")
        found = open_data("text", path=folder)
        assert isinstance(found, TokenData)
        return found


def text_of(tokens: np.ndarray) -> str:
    return " ".join(TOKENS[token] for token in tokens if token not in (PADDING, START))


@pytest.mark.parametrize("length", [16, 64, 512])
def test_a_listops_expression_has_the_value_of_its_class(length: int) -> None:
    data = ListOps(length=length)
    x, y = data.train_batch(0, 50, length, seed=3)
    for tokens, label in zip(x.numpy(), y.tolist(), strict=True):
        assert evaluated(text_of(tokens)) == label
        assert length // 4 - 1 <= (tokens != PADDING).sum() <= length
    assert len(set(y.tolist())) > 5


def test_listops_values_by_hand() -> None:
    assert evaluated("[MAX 4 3 [MIN 2 3 ] 1 0 [MED 1 5 8 9 2 ] ]") == 5  # Tay et al. 2021, section 2.1
    assert evaluated("[SM 9 8 7 ]") == 4
    assert evaluated("[MED 1 4 ]") == 2
    for wrong in ("[MAX 4", "4 4", "[MAX ]", "] 4", "[SUM 4 ]"):
        with pytest.raises(InvalidValue):
            evaluated(wrong)


@pytest.mark.parametrize(
    ("name", "options"), [("listops", {"length": 8}), ("pathfinder", {"side": 16}), ("pathfinder", {"side": 256})]
)
def test_impossible_sizes_are_refused(name: str, options: dict[str, int]) -> None:
    with pytest.raises(InvalidValue, match=r"listops cannot have|pathfinder draws"):
        open_data(name, options=DataOptions(**options))


def test_options_of_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="takes only length"):
        open_data("listops", options=DataOptions(side=32))
    with pytest.raises(InvalidValue, match="reads no folder"):
        open_data("listops", path=tmp_path)


def test_pathfinder_connects_the_circles_or_does_not() -> None:
    """Of many images: both classes, dashes that touch no other path, and two bright circles."""
    data = Pathfinder()
    labels = []
    for i in range(40):
        image, label = data.image("test", i)
        labels.append(label)
        assert image.shape == (32, 32)
        assert image.max() == 255
        bright = image > 180
        inner = bright[1:-1, :-2] & bright[1:-1, 2:] & bright[:-2, 1:-1] & bright[2:, 1:-1]
        assert inner.any()  # dashes are thinner than circles
    assert 8 < sum(labels) < 32


def test_pixels_are_the_images_gray_levels() -> None:
    images, tokens = open_data("cluttered-digits"), open_data("pixel-digits")
    (x, y), (t, z) = images.train_batch(2, 8, 32, seed=1), tokens.train_batch(2, 8, 1025, seed=1)
    assert torch.equal(y, z)
    levels = ((x * 0.22 + 0.16) * 255).round().clamp(0, 255).long().flatten(1)
    assert torch.equal(t[:, 1:], levels + 2)
    parts = [tokens.train_batch(2, 8, 1025, seed=1, part=(i, 2))[0] for i in range(2)]
    assert torch.equal(torch.cat(parts), t)


def rows(path: Path, lines: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)


def test_texts_of_a_csv_file_keep_their_splits(tmp_path: Path) -> None:
    lines = [{"text": f"text {i}", "label": "ab"[i % 2], "split": ("train", "val", "test")[i % 3]} for i in range(30)]
    rows(tmp_path / "rows.csv", lines)
    data = open_data("text", path=tmp_path, options=DataOptions(labels="rows.csv"))
    assert [data.size(split) for split in ("train", "validation", "test")] == [10, 10, 10]
    x, _ = next(data.batches("validation", 12))
    found = {bytes(int(t) - 3 for t in row if t > 2).decode() for row in x}
    assert found == {line["text"] for line in lines if line["split"] == "val"}


def test_a_pair_keeps_half_of_each_text(tmp_path: Path) -> None:
    lines = [{"text": "a" * 30, "other": "b" * n, "label": "xy"[n % 2]} for n in range(1, 41)]
    rows(tmp_path / "rows.csv", lines)
    data = open_data("text", path=tmp_path, options=DataOptions(labels="rows.csv"))
    for x, _ in data.batches("train", 21):
        for row in x.tolist():
            first, second = (sum(token == 3 + ord(letter) for token in row) for letter in "ab")
            assert row[0] == START
            assert row.count(2) == 1
            assert first >= 10
            assert first + second + 2 == 21
            assert second <= 9


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([{"text": "a", "class": "b"}], "no column label"),
        ([{"text": "", "label": "b"}], "line 2: text is empty"),
        ([{"text": "a", "label": "b", "split": "half"}], "the split 'half'"),
        ([{"text": "a", "label": "b"}] * 9, "of 1 classes"),
        ([{"text": "a", "label": "b"}, {"text": "a", "label": "c"}], "split of .* is empty"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, lines: list[dict[str, str]], words: str) -> None:
    rows(tmp_path / "rows.csv", lines)
    with pytest.raises(DataError, match=words):
        open_data("text", path=tmp_path, options=DataOptions(labels="rows.csv"))


def test_an_augmentation_is_for_images() -> None:
    with pytest.raises(InvalidValue, match="for images"):
        ListOps(length=16).train_batch(0, 4, 16, seed=0, augmentation=Augmentation(flip=0.0))


def test_a_pair_is_cut_as_if_it_was_read_at_the_smaller_length(tmp_path: Path) -> None:
    lines = [{"text": "a" * (3 * n), "other": "b" * (50 - n), "label": "xy"[n % 2]} for n in range(1, 41)]
    rows(tmp_path / "rows.csv", lines)
    data = open_data("text", path=tmp_path, options=DataOptions(labels="rows.csv"))
    assert isinstance(data, TokenData)
    for (long, _), (short, _) in zip(data.batches("train", 200), data.batches("train", 32), strict=True):
        assert torch.equal(data.shortened(long, 32), short)


def test_line_ends_of_windows_are_tokens(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(10):
            (tmp_path / label / f"{i}.txt").write_bytes(f"{label}{i}\r\nnext".encode())
    x, _ = next(open_data("text", path=tmp_path).batches("train", 20))
    assert all(3 + ord("\r") in row for row in x.tolist())


def test_texts_longer_than_pythons_limit_of_a_cell(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    rows(tmp_path / "rows.csv", [{"text": f"{i}" * 140_000, "label": "ab"[i % 2]} for i in range(8)] * 3)
    data = open_data("text", path=tmp_path, options=DataOptions(labels="rows.csv"))
    assert data.resolution == 140_001
    assert csv.field_size_limit() == before


def test_a_label_of_blanks_is_empty(tmp_path: Path) -> None:
    rows(tmp_path / "rows.csv", [{"text": "a", "label": " "}])
    with pytest.raises(DataError, match="line 2: label is empty"):
        open_data("text", path=tmp_path, options=DataOptions(labels="rows.csv"))
