"""Texts, or pairs of texts, and their classes, as sequences of bytes.

The layouts are those of datasets of images: folders of files by class, a CSV file, or a Hugging Face dataset on disk.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from hwnas.data.base import Split, check_split, stable_seed
from hwnas.data.huggingface import read_splits
from hwnas.data.label_files import SPLIT_NAMES
from hwnas.data.options import DataOptions, check_only
from hwnas.data.sequences import PADDING, START, TokenData, Tokens
from hwnas.errors import DataError, some

SEPARATOR, FIRST = 2, 3  # the token between two texts, and that of the byte 0
SUFFIXES = (".txt", ".md", ".text")
SHARES = (0.7, 0.15, 0.15)
_LONGEST_CELL = 2**30  # bytes of a text in a CSV file; Python's own limit is 128 KiB
_HUGGING_FACE = "dataset_dict.json"  # the file that marks such a dataset
FORM = (
    "texts are files train/<class>/*.txt (and val/, test/), or lines of a CSV file with the columns text, label, and "
    "perhaps other (the second text of a pair) and split, or a Hugging Face dataset on disk"
)


class Row(NamedTuple):
    """A text, the second one of a pair (None if there is none), and the class."""

    text: str
    other: str | None
    label: str


class Texts(TokenData):
    """Texts as UTF-8 bytes: a token is the byte plus 3, behind the one that starts a sequence.

    The texts of a pair follow each other, with a token between them; each gets half of the sequence.

    Args:
        path: the folder.
        seed: determines the splits where the files have none.
        options: `labels`, the CSV file; `split`, shares of the splits.

    Raises:
        DataError: the folder does not have that layout, or a text cannot be read.
        InvalidValue: an option that is for images.
        RuntimeUnavailable: the package `datasets` is missing, for a Hugging Face dataset.
    """

    name = "text"
    vocabulary = FIRST + 256

    def __init__(self, path: Path, seed: int, options: DataOptions) -> None:
        check_only(options, self.name, ("labels", "split", "split_seed"))
        self._path, self._options = path, options
        if options.labels:
            found = _from_csv(path / options.labels)
        else:
            found = _from_hugging_face(path) if (path / _HUGGING_FACE).is_file() else _from_folders(path)
        self.classes = tuple(sorted({row.label for rows in found.values() for row in rows}))
        if len(self.classes) < 2:
            raise DataError(f"{path} has texts of {len(self.classes)} classes; at least 2 are needed. {FORM}")
        shares = options.split or SHARES
        self._texts = _split(found, shares, (seed, options.split_seed))
        if empty := [split for split, rows in self._texts.items() if not rows]:
            raise DataError(f"the {empty[0]} split of {path} is empty: there are too few texts")
        self._index = {name: i for i, name in enumerate(self.classes)}
        self.pairs = any(row.other is not None for rows in self._texts.values() for row in rows)
        self.resolution = max(len(_joined(row)) for rows in self._texts.values() for row in rows)

    def size(self, split: Split) -> int:
        """Number of texts of a split."""
        check_split(split)
        return len(self._texts[split])

    @property
    def folder(self) -> str:
        """Name of the folder."""
        return self._path.resolve().name

    def class_sizes(self, split: Split) -> list[int] | None:
        """Number of texts of each class in a split."""
        labels = [row.label for row in self._texts[split]]
        return [labels.count(name) for name in self.classes]

    def fingerprint(self) -> str:
        """A hash of all texts, their classes and splits."""
        return self._hashed(get_args(Split))

    def split_fingerprint(self, split: Split) -> str:
        """A hash of the texts of a split and their classes."""
        check_split(split)
        return self._hashed((split,))

    def recorded_options(self) -> dict[str, JsonValue] | None:
        """The options to open the data again."""
        return self._options.recorded()

    def tokenizer(self) -> dict[str, JsonValue]:
        """Tokens are bytes."""
        return {"kind": "bytes", "first": FIRST, **({"separator": SEPARATOR} if self.pairs else {})}

    def _rows(self, split: Split, numbers: Sequence[int]) -> tuple[list[Tokens], Tensor]:
        rows = [self._texts[split][number] for number in numbers]
        labels = torch.tensor([self._index[row.label] for row in rows], dtype=torch.int64)
        return [_joined(row) for row in rows], labels

    def _padded(self, rows: Sequence[Tokens], length: int) -> Tensor:
        return super()._padded([_shortened(row, length) for row in rows] if self.pairs else rows, length)

    def shortened(self, tokens: Tensor, length: int) -> Tensor:
        """Sequences as they are at a smaller length: of a pair, both texts are cut."""
        if not self.pairs or tokens.shape[1] <= length:
            return super().shortened(tokens, length)
        return self._padded([row[row != PADDING] for row in tokens.cpu().numpy()], length).to(tokens.device)

    def _hashed(self, splits: Sequence[Split]) -> str:
        digest = hashlib.blake2b(repr((self.name, self.classes)).encode(), digest_size=16)
        for split in splits:
            digest.update(repr((split, self._texts[split])).encode())
        return digest.hexdigest()


def _bytes(text: str) -> list[int]:
    return [byte + FIRST for byte in text.encode()]


def _joined(row: Row) -> Tokens:
    """The tokens of a text or of a pair."""
    other = [] if row.other is None else [SEPARATOR, *_bytes(row.other)]
    return np.array([START, *_bytes(row.text), *other], np.int64)


def _shortened(tokens: Tokens, length: int) -> Tokens:
    """A pair with at most this number of tokens: each text is cut to half of it, if it is longer."""
    if len(tokens) <= length:
        return tokens
    [at] = np.flatnonzero(tokens == SEPARATOR)[:1].tolist() or [len(tokens)]
    half = (length - 1) // 2
    first, second = tokens[1:at], tokens[at:]
    room = length - 1 - min(len(second), half)
    first = first[: max(room, half)]
    return np.concatenate([tokens[:1], first, second[: length - 1 - len(first)]])


def _from_csv(path: Path) -> dict[str, list[Row]]:
    """Name of a split, "" without one -> its rows."""
    found: dict[str, list[Row]] = {}
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if missing := {"text", "label"} - set(columns):
                raise DataError(f"{path} has no column {', '.join(sorted(missing))}; it has {some(columns)}. {FORM}")
            for number, line in enumerate(reader, start=2):
                text, label = line["text"], (line["label"] or "").strip()
                if not text or not label:
                    raise DataError(f"{path}, line {number}: {'text' if not text else 'label'} is empty")
                split = (line.get("split") or "").strip().lower()
                if split and split not in SPLIT_NAMES:
                    raise DataError(
                        f"{path}, line {number}: the split {split!r} is not one of {', '.join(SPLIT_NAMES)}"
                    )
                found.setdefault(SPLIT_NAMES.get(split, ""), []).append(Row(text, line.get("other"), label))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return found


def _from_folders(path: Path) -> dict[str, list[Row]]:
    """Name of a split, "" where classes are directly in the folder -> its rows."""
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; {FORM}")
    splits: list[tuple[Path, str]] = [
        (folder, SPLIT_NAMES[folder.name]) for folder in sorted(path.iterdir()) if folder.name in SPLIT_NAMES
    ]
    found: dict[str, list[Row]] = {}
    for folder, split in splits or [(path, "")]:
        for of_class in sorted(one for one in folder.iterdir() if one.is_dir()):
            for file in sorted(one for one in of_class.iterdir() if one.suffix.lower() in SUFFIXES):
                try:
                    text = file.read_bytes().decode()
                except (OSError, UnicodeDecodeError) as error:
                    raise DataError(f"cannot read {file} as UTF-8: {error}") from error
                if not text:
                    raise DataError(f"{file} is empty")
                found.setdefault(split, []).append(Row(text, None, of_class.name))
    if not found:
        raise DataError(f"{path} has no texts; {FORM}")
    return found


def _from_hugging_face(path: Path) -> dict[str, list[Row]]:
    """Name of a split -> its rows, of a dataset with one or two columns of texts and one of class labels.

    Of two columns of texts, the first one is the first text of a pair.
    """
    splits = read_splits(path)  # it says what to install if the package is missing
    import datasets

    features = splits["train"].features
    kinds = {name: getattr(kind, "dtype", "") for name, kind in features.items()}
    texts = [name for name, kind in kinds.items() if kind in ("string", "large_string")]
    labels = {name: kind for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
    if len(texts) not in (1, 2) or len(labels) != 1:
        listing = ", ".join(f"{name} ({type(kind).__name__} {kinds[name]})" for name, kind in features.items())
        raise DataError(
            f"{path} has the columns {listing}; it needs one or two columns of texts (string) and one of labels "
            "(ClassLabel). Drop or cast the others with datasets' remove_columns and cast_column"
        )
    [(target, kind)] = labels.items()
    found: dict[str, list[Row]] = {}
    for split, rows in splits.items():
        columns = [rows[name] for name in texts]
        for number, (label, *each) in enumerate(zip(rows[target], *columns, strict=True)):
            if not all(each) or label is None or not 0 <= label < len(kind.names):
                raise DataError(f"row {number} of {path / split} has an empty text or no label; remove it")
            found.setdefault(split, []).append(Row(each[0], each[1] if len(each) > 1 else None, kind.names[label]))
    return found


def _split(
    found: dict[str, list[Row]], shares: tuple[float, float, float], seed: tuple[int, int]
) -> dict[Split, list[Row]]:
    """All three splits, in a random order; those that are missing come from the training texts, class by class."""
    named: dict[Split, list[Row]] = {split: list(found.get(split, [])) for split in get_args(Split)}
    if "" in found and (others := [split for split, rows in named.items() if rows]):
        raise DataError(f"some texts have a split ({', '.join(others)}) and some have none; give all or none")
    pool = named["train"] + found.get("", [])
    missing = [split for split in get_args(Split)[1:] if not named[split]]
    by_class: dict[str, list[Row]] = {}
    for row in pool:
        by_class.setdefault(row.label, []).append(row)
    total = shares[0] + sum(shares[get_args(Split).index(split)] for split in missing)
    train: list[Row] = []
    for label, rows in by_class.items():
        order = np.random.default_rng(stable_seed("texts", *seed, label)).permutation(len(rows))
        shuffled, at = [rows[i] for i in order], 0
        for split in missing:
            count = round(shares[get_args(Split).index(split)] / total * len(rows))
            named[split] += shuffled[at : at + count]
            at += count
        train += shuffled[at:]
    named["train"] = train
    for split, rows in named.items():
        order = np.random.default_rng(stable_seed("order", *seed, split)).permutation(len(rows))
        named[split] = [rows[i] for i in order]
    return named
