"""Hugging Face datasets on disk, as ``Dataset.save_to_disk`` writes them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from hwnas.data.base import Split, check_split, stable_seed
from hwnas.data.options import DataOptions, check_only
from hwnas.data.photographs import Photographs, held_out, ordered
from hwnas.errors import DataError, RuntimeUnavailable, some

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image

USUAL_OPTIONS = DataOptions()
FORM = "a Hugging Face dataset on disk is a folder that DatasetDict.save_to_disk wrote, with a train split"


class HuggingFace(Photographs):
    """A dataset with a column of images and a column of class labels; nothing is downloaded.

    Splits are ``train``, ``validation`` (or ``val``, ``valid``) and ``test``. If one of the last two is missing, the
    other one is the test split, and the validation split is held out of the training images, as in `Images`.

    Args:
        path: the dataset's folder.
        seed: determines the hold-out and the order of the splits. Leave it at 0 for comparable results.
        options: channels (3 by default) and transform; the other options are for image folders.

    Raises:
        DataError: the folder does not have that layout.
        InvalidValue: an option that is for image folders.
        RuntimeUnavailable: the package `datasets` is missing.
    """

    name = "huggingface"

    def __init__(self, path: Path, *, seed: int = 0, options: DataOptions = USUAL_OPTIONS) -> None:
        check_only(options, self.name)
        self._path = path
        splits = read_splits(path)
        features = splits["train"].features
        self._image, target, self.classes = _columns(path, features)
        for name, rows in splits.items():
            if rows.features != features:
                raise DataError(f"the columns of {name} and train in {path} differ; they must be the same")
        groups = {name: _by_class(rows[target], self.classes, path / name) for name, rows in splits.items()}
        if splits.keys() == {"train", "validation", "test"}:
            chosen = {name: (name, groups[name]) for name in splits}
        else:
            [judge] = splits.keys() - {"train"}
            used = {name for found in groups.values() for name, each in found.items() if each}
            split = held_out({n: each for n, each in groups["train"].items() if n in used}, path / "train", seed)
            kept, out = ({name: part.get(name, []) for name in self.classes} for part in split)
            chosen = {"train": ("train", kept), "validation": ("train", out), "test": (judge, groups[judge])}
        self._splits: dict[str, tuple[Dataset, tuple[tuple[int, int], ...]]] = {
            split: (_undecoded(splits[source], self._image), ordered(found, stable_seed(split, seed)))
            for split, (source, found) in chosen.items()
        }
        self._configure(options, lambda: False)

    def size(self, split: Split) -> int:
        """Number of images of a split.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return len(self._splits[split][1])

    @property
    def folder(self) -> str:
        """Name of the dataset's folder."""
        return self._path.resolve().name

    def fingerprint(self) -> str:
        """A hash of the columns' contents, as `datasets` fingerprints them, and of the order of all splits."""
        digest = hashlib.blake2b(repr((self.name, self.classes)).encode(), digest_size=16)
        if appearance := self._appearance(orientation=False):
            digest.update(repr(appearance).encode())
        for split, (rows, order) in self._splits.items():
            digest.update(repr((split, rows._fingerprint, order)).encode())
        return digest.hexdigest()

    def split_fingerprint(self, split: Split) -> str:
        """A hash of the contents and order of a split's images, and of how they are read.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        rows, order = self._splits[split]
        seen = (self.name, self.classes, self._appearance(orientation=True), split, rows._fingerprint, order)
        return hashlib.blake2b(repr(seen).encode(), digest_size=16).hexdigest()

    def recorded_options(self) -> dict[str, JsonValue]:
        """The options to open the data again, as JSON values."""
        return self.options.recorded()

    def _decoded(self, split: Split, index: int) -> Image.Image:
        rows, order = self._splits[split]
        row = order[index][0]
        cell, where = rows[row][self._image], f"image {row} of {self._path / split}"
        if cell is None:
            raise DataError(f"{where} is empty; remove it")
        return self._open(io.BytesIO(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]), where)

    def _label(self, split: Split, index: int) -> int:
        return self._splits[split][1][index][1]


def read_splits(path: Path) -> dict[str, Dataset]:
    """The splits of a dataset on disk by hwnas's names; images are not decoded.

    Raises:
        DataError: the folder does not have that layout.
        RuntimeUnavailable: the package `datasets` is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise RuntimeUnavailable("the package datasets is missing: pip install 'hwnas[huggingface]'") from error
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; {FORM}")
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, IndexError) as error:  # IndexError: an empty split
        raise DataError(f"cannot read {path} ({error}); is a split empty? {FORM}") from error
    if not isinstance(found, datasets.DatasetDict):
        raise DataError(f"{path} contains a single split; {FORM}")
    names = {"val": "validation", "valid": "validation"}
    splits = {names.get(name, name): rows for name, rows in found.items()}
    if len(splits) < len(found) or "train" not in splits or not splits.keys() & {"validation", "test"}:
        raise DataError(f"{path} has the splits {some(list(found))}; it needs train, and validation or test or both")
    if empty := [name for name, rows in found.items() if not len(rows)]:
        raise DataError(f"{path} has no rows in {', '.join(empty)}; remove an empty split, or fill it")
    return {name: splits[name] for name in ("train", "validation", "test") if name in splits}


def _columns(path: Path, features: Mapping[str, object]) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and of labels, and the names of the classes."""
    import datasets

    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        listing = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
        raise DataError(
            f"{path} has the columns {listing}; it needs one column of images (Image) and one of labels (ClassLabel). "
            "Drop or cast the others with datasets' remove_columns and cast_column"
        )
    kind = features[labels[0]]
    assert isinstance(kind, datasets.ClassLabel)
    classes = tuple(kind.names)
    if len(classes) < 2:
        raise DataError(f"{path} has only the class {some(classes)}; at least 2 are needed")
    return images[0], labels[0], classes


def _undecoded(rows: Dataset, column: str) -> Dataset:
    """The split with undecoded images, so that `opened` can name a broken one."""
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))


def _by_class(labels: Iterable[int | None], classes: tuple[str, ...], where: Path) -> dict[str, list[int]]:
    """Class -> its rows.

    Raises:
        DataError: a row has no label.
    """
    rows: dict[str, list[int]] = {name: [] for name in classes}
    for row, label in enumerate(labels):
        if label is None or not 0 <= label < len(classes):
            raise DataError(f"image {row} of {where} has the invalid label {label}; remove it")
        rows[classes[label]].append(row)
    return rows
