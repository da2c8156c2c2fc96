"""Texts of a Hugging Face dataset on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.data import open_data
from hwnas.data.texts import FIRST, SEPARATOR, Texts
from hwnas.errors import DataError

datasets = pytest.importorskip("datasets")

CLASSES = ["bad", "good"]


def save(path: Path, columns: dict[str, list[str]], *, labels: bool = True, count: int = 8) -> Path:
    kinds = {name: datasets.Value("string") for name in columns}
    kinds["label"] = datasets.ClassLabel(names=CLASSES) if labels else datasets.Value("int64")
    rows = {**columns, "label": [i % 2 for i in range(count)]}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(str(path))
    return path


def test_texts_and_classes_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "d", {"sentence": [f"text {i}" for i in range(8)]})
    data = open_data("text", path=path)
    assert isinstance(data, Texts)
    assert data.classes == tuple(CLASSES)
    assert data.size("test") == 8
    assert data.size("train") + data.size("validation") == 8
    assert not data.pairs
    [(tokens, labels), *_] = data.batches("test", 12, batch_size=8)
    for row, label in zip(tokens.tolist(), labels.tolist(), strict=True):
        text = bytes(token - FIRST for token in row if token >= FIRST).decode()
        assert int(text.removeprefix("text ")) % 2 == label


def test_two_columns_are_pairs(tmp_path: Path) -> None:
    path = save(tmp_path / "d", {"question": ["a?"] * 8, "answer": ["b"] * 8})
    data = open_data("text", path=path)
    assert isinstance(data, Texts)
    assert data.pairs
    [(tokens, _), *_] = data.batches("test", 12, batch_size=8)
    row = tokens[0].tolist()
    assert row[1:5] == [ord("a") + FIRST, ord("?") + FIRST, SEPARATOR, ord("b") + FIRST]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sentence \(Value string\), label \(Value int64\).*one of labels"):
        open_data("text", path=save(tmp_path / "a", {"sentence": ["x"] * 8}, labels=False))
    with pytest.raises(DataError, match=r"row 3 of .* has an empty text"):
        open_data("text", path=save(tmp_path / "b", {"sentence": ["x"] * 3 + [""] + ["y"] * 4}))
