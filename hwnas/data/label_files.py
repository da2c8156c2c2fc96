"""CSV files of labels: one class per image, or shares of several."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hwnas.data.base import Split
from hwnas.errors import DataError, some

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SHOWN = 20  # wrong lines that a message lists
_LARGEST = 1e12  # of a share, so that sums are finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of a CSV file of labels.

    Attributes:
        file: path of the image below the dataset's folder.
        label: its class; of several, the one with the largest share, the first of equal ones.
        split: train without a column of splits.
        shares: of the classes, with the sum 1; empty if the label is all of it.
    """

    file: str
    label: str
    split: Split
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The lines of a CSV file of labels, and the classes in the order of its columns; None for a column ``label``."""

    entries: list[Entry]
    classes: list[str] | None


def read_labels(file: Path, *, splits: bool) -> Labels:
    """Read a CSV file with the columns ``file`` and ``label``, or ``file`` and one column of shares per class.

    Shares are numbers of at least 0 and are divided by their sum: probabilities, votes, or 1 for each of several
    classes. In both cases a column ``split`` may follow.

    Args:
        file: the CSV file.
        splits: whether it must have the column ``split``; otherwise it must not.

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
    classes = None if "label" in columns else [name for name in columns if name not in ("file", "split")]
    if "file" not in columns or (classes is not None and len(classes) < 2):
        raise DataError(
            f"{file} has the columns {some(columns)}; its first line should be file,label or file,label,split, or for "
            "shares of several classes file and the name of each class, such as file,cat,dog"
        )
    if classes is not None:
        if unnamed := [number for number, name in enumerate(columns, start=1) if not name or not name.isprintable()]:
            raise DataError(
                f"column {unnamed[0]} of {file} has no readable name, but each column of shares is a class; remove it, "
                "or name it (pandas writes no index with to_csv(index=False))"
            )
        if len(set(columns)) < len(columns):
            raise DataError(f"{file} has two columns of one name: {some(columns)}")
    if ("split" in columns) != splits:
        raise DataError(
            f"{file} has no column split; add one (train, val, test), or give shares: --split 70,15,15"
            if splits
            else f"{file} has a column split, and shares are given as well; omit one of them"
        )
    return Labels(entries=_entries(file, rows, classes), classes=classes)


def _entries(
    file: Path, rows: Sequence[tuple[int, Mapping[str, str | None]]], classes: Sequence[str] | None
) -> list[Entry]:
    """The lines of the file.

    Raises:
        DataError: a line is wrong; the message lists all of them.
    """
    mistakes, entries, seen = list[str](), list[Entry](), dict[str, int]()
    for line, row in rows:
        name = (row["file"] or "").strip()
        split = (row.get("split") or "").strip().lower() if "split" in row else "train"
        try:
            _check(name, split)
            label, shares = _label(name, row) if classes is None else _shared(name, row, classes)
            if name in seen:
                raise ValueError(f"{name} is already in line {seen[name]}")
            entries.append(Entry(file=name, label=label, split=SPLIT_NAMES[split], shares=shares))
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


def _label(name: str, row: Mapping[str, str | None]) -> tuple[str, tuple[float, ...]]:
    if not (label := (row["label"] or "").strip()):
        raise ValueError(f"{name} has no label")
    return label, ()


def _shared(name: str, row: Mapping[str, str | None], classes: Sequence[str]) -> tuple[str, tuple[float, ...]]:
    """The class with the largest share, and the shares."""
    if None in row or any(row[each] is None for each in classes):
        raise ValueError(f"the line of {name} has other cells than the first line; write decimals with a point")
    values = []
    for each in classes:
        text = (row[each] or "").strip() or "0"
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= _LARGEST:
            raise ValueError(
                f"the share of {each!r} in {name} is {text!r}; it should be a number from 0 to {_LARGEST:g}"
            )
        values.append(value)
    if not (total := math.fsum(values)):
        raise ValueError(f"{name} has no label: all its shares are 0")
    shares = tuple(value / total for value in values)
    return classes[shares.index(max(shares))], shares
