"""CSV files of labels: one class per image, shares of several, or several labels."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from hwnas.data.base import PRESENT, Split
from hwnas.errors import DataError, some

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
SEPARATOR = ";"  # of several labels in a cell
_SHOWN = 20  # wrong lines that a message lists
_LARGEST = 1e12  # of a share, so that sums are finite
_HINT = "if an image may have none or several of the classes, set multi_label = true (--multi-label)"
_Row = Mapping[str, str | None]
_Read = Callable[[str, _Row], tuple[str, tuple[float, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a CSV file of labels.

    Attributes:
        file: path of the image below the dataset's folder.
        label: its class. Of shares, the class with the largest one, the first of equal ones. Of several labels, the one
            that the fewest images of the file have; empty if there is none.
        split: train without a column of splits.
        targets: a value for each class: shares with the sum 1 or, of several labels, the probability of each; empty if
            the label is all of it.
    """

    file: str
    label: str
    split: Split
    targets: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The lines of a CSV file of labels, and the classes in the order of its columns.

    With a column ``label``, classes are None, or with several labels per image `in_order`.
    """

    entries: list[Entry]
    classes: list[str] | None


def read_labels(file: Path, *, splits: bool, multi_label: bool = False) -> Labels:
    """Read a CSV file with the columns ``file`` and ``label``, or ``file`` and one column per class.

    Columns of classes contain shares, numbers of at least 0 that are divided by their sum: probabilities, votes, or 1
    for each of several classes. With `multi_label` they contain the probability of each class, and a column ``label``
    contains names that are separated by semicolons, or none. In all cases a column ``split`` may follow.

    Args:
        file: the CSV file.
        splits: whether it must have the column ``split``; otherwise it must not.
        multi_label: whether the classes of an image are independent of each other.

    Raises:
        DataError: the file cannot be read, or lines are wrong; the message lists them.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the labels {file}: {error}") from error
    if len(set(columns)) < len(columns):
        raise DataError(f"{file} has two columns of one name: {some(columns)}")
    classes = None if "label" in columns else [name for name in columns if name not in ("file", "split")]
    if "file" not in columns or (classes is not None and len(classes) < 2):
        raise DataError(
            f"{file} has the columns {some(columns)}; its first line should be file,label or file,label,split, or for "
            "shares of several classes file and the name of each class, such as file,cat,dog"
        )
    unnamed = [number for number, name in enumerate(columns, start=1) if not name or not name.isprintable()]
    if classes is not None and unnamed:
        raise DataError(
            f"column {unnamed[0]} of {file} has no readable name, but each column of shares is a class; remove it, "
            "or name it (pandas writes no index with to_csv(index=False))"
        )
    if ("split" in columns) != splits:
        raise DataError(
            f"{file} has no column split; add one (train, val, test), or give shares: --split 70,15,15"
            if splits
            else f"{file} has a column split, and shares are given as well; omit one of them"
        )
    if multi_label:
        known = in_order({name for _, row in rows for name in _names(row)}) if classes is None else classes
        read = partial(_listed if classes is None else _present, classes=known)
        return Labels(entries=_by_rarest(_entries(file, rows, read), known), classes=known)
    entries = _entries(file, rows, _label if classes is None else partial(_shared, classes=classes))
    return Labels(entries=entries, classes=classes)


def _entries(file: Path, rows: Sequence[tuple[int, _Row]], read: _Read) -> list[Entry]:
    """The lines of the file; `read` returns the label and the targets of a file and its row.

    Raises:
        DataError: a line is wrong; the message lists all of them.
    """
    mistakes, entries, seen = list[str](), list[Entry](), dict[str, int]()
    for line, row in rows:
        given = (row["file"] or "").strip()
        name = PurePosixPath(given).as_posix() if given else ""  # ./a.png and a.png are one file
        split = (row.get("split") or "").strip().lower() if "split" in row else "train"
        try:
            _check(name, split)
            if None in row:
                raise ValueError(
                    f"the line of {name} has more cells than the first line; write a label with a comma in quotes, "
                    f"several labels with {SEPARATOR!r} between them, and decimals with a point"
                )
            label, targets = read(name, row)
            if name in seen:
                raise ValueError(f"{name} is already in line {seen[name]}")
            entries.append(Entry(file=name, label=label, split=SPLIT_NAMES[split], targets=targets))
        except ValueError as error:
            mistakes.append(f"line {line}: {error}")
        seen.setdefault(name, line)
    if mistakes:
        more = f"\n  and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
        raise DataError(f"{file} has {len(mistakes)} wrong lines\n  " + "\n  ".join(mistakes[:_SHOWN]) + more)
    return entries


def _check(name: str, split: str) -> None:
    if not name:
        raise ValueError("the file is missing")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name} is not a path below the dataset's folder")
    if split not in SPLIT_NAMES:
        raise ValueError(f"the split of {name} is {split!r}; it should be one of {', '.join(SPLIT_NAMES)}")


def _label(name: str, row: _Row) -> tuple[str, tuple[float, ...]]:
    if not (label := (row["label"] or "").strip()):
        raise ValueError(f"{name} has no label")
    _check_name(label, name)
    return label, ()


def _check_name(label: str, file: str) -> None:
    """Check that the name of a class is text of one line.

    Raises:
        ValueError: it is not.
    """
    if not label.isprintable():
        raise ValueError(f"the label of {file}, {label!r}, has characters that cannot be printed")


def _shared(name: str, row: _Row, classes: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    """The class with the largest share, and the shares."""
    values = _values(name, row, classes, "share", _LARGEST)
    if not (total := math.fsum(values)):
        raise ValueError(f"{name} has no label: all its shares are 0; {_HINT}")
    shares = tuple(value / total for value in values)
    return classes[shares.index(max(shares))], shares


def _present(name: str, row: _Row, classes: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    """The probability of each class."""
    return "", tuple(_values(name, row, classes, "probability", 1))


def _listed(name: str, row: _Row, classes: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    """1 for each class in the cell, 0 for the others."""
    if row["label"] is None:
        raise ValueError(f"the line of {name} has fewer cells than the first line")
    found = _names(row)
    for label in found:
        _check_name(label, name)
    return "", tuple(float(each in found) for each in classes)


def _names(row: _Row) -> set[str]:
    """The labels of a cell."""
    return {name for part in (row["label"] or "").split(SEPARATOR) if (name := part.strip())}


def _values(name: str, row: _Row, classes: Sequence[str], what: str, largest: float) -> list[float]:
    """The numbers of the classes; an empty cell is 0.

    Raises:
        ValueError: a cell is not a number from 0 to `largest`, or the row has other cells than the first line.
    """
    if any(row[each] is None for each in classes):
        raise ValueError(f"the line of {name} has fewer cells than the first line")
    values = []
    for each in classes:
        text = (row[each] or "").strip() or "0"
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= largest:
            raise ValueError(
                f"the {what} of {each!r} in {name} is {text!r}; it should be a number from 0 to {largest:g}"
            )
        values.append(value)
    return values


def _by_rarest(entries: Sequence[Entry], classes: Sequence[str]) -> list[Entry]:
    """The entries with the rarest of their classes as the label: a split in proportion to these keeps rare classes."""
    has = [[each for each, value in zip(classes, entry.targets, strict=True) if value >= PRESENT] for entry in entries]
    counts = Counter(each for names in has for each in names)
    return [
        replace(entry, label=min(names, key=counts.__getitem__, default=""))
        for entry, names in zip(entries, has, strict=True)
    ]


def in_order(names: Collection[str]) -> list[str]:
    """Names in alphabetical order, numbers by value."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))  # 1 and 01 are different names
    return sorted(names)
