"""Image folders in the layout of ImageNet, read with Pillow."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from hwnas.data.base import Split, check_split, stable_seed
from hwnas.data.decode import SUFFIXES, is_gray
from hwnas.data.options import DataOptions
from hwnas.data.photographs import Photographs, held_out, ordered
from hwnas.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Listing = dict[str, list[str]]  # class -> its images, as paths below the dataset's folder
Labelled = tuple[tuple[str, int], ...]  # path and class index, in the order of `Data.batches`

USUAL_OPTIONS = DataOptions()
LAYOUT = "an image folder has train/<class>/ and val/<class>/ with images in them"


class Images(Photographs):
    """An image folder: ``train/<class>/*``, ``val/<class>/*`` (or ``validation``), optionally ``test/<class>/*``.

    Without a test folder, the val folder is the test split, and the validation split is held out of the
    training images: a tenth, at most 10,000, in proportion to the classes (but at least one of each). They
    are not trained on. This is once-for-all's convention: the images that select an architecture are not
    those that evaluate it. With a test folder, each folder is a split.

    A split is shuffled once and then ordered round-robin by class, so that the first images cover all classes.
    A training epoch contains every image once. Training images are randomly cropped and flipped; for test images
    the short side is resized to ``resolution / 0.875`` and the centre cropped. Names that start with a dot and
    files with other suffixes are ignored. EXIF orientation is applied; of an animation, the first frame is read.

    Images are read in colour, or gray if all training images store gray pixels.

    Opening lists the folders and reads headers up to the first image in colour; it decodes nothing, unless a mean is to
    be measured.

    Args:
        path: the dataset's folder.
        seed: determines the hold-out and the order of the splits. Leave it at 0 for comparable results.
        options: how the images are read; by default as described here.

    Raises:
        DataError: the folder does not have that layout, or the options do not fit the images.
    """

    name = "images"

    def __init__(self, path: Path, *, seed: int = 0, options: DataOptions = USUAL_OPTIONS) -> None:
        self._path = path
        train_folder, val_folder = _folders(path)
        train = _listing(train_folder)
        if len(train) < 2:
            raise DataError(f"{train_folder} has only the class {next(iter(train))}; at least 2 are needed")
        val = _listing(val_folder, like=train)
        listings: dict[Split, Listing]
        if (path / "test").is_dir():
            listings = {"train": train, "validation": val, "test": _listing(path / "test", like=train)}
        else:
            kept, out = held_out(train, train_folder, seed)
            listings = {"train": kept, "validation": out, "test": val}
        self.classes = tuple(train)
        self._files = {split: ordered(found, stable_seed(split, seed)) for split, found in listings.items()}
        self._configure(options, self._is_gray)

    def size(self, split: Split) -> int:
        """Number of images of a split.

        Raises:
            UnknownName: there is no such split.
        """
        return len(self.files(split))

    def files(self, split: Split) -> Labelled:
        """The images of a split in the order of `batches`: paths below the dataset's folder, and labels.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return self._files[split]

    def fingerprint(self) -> str:
        """A hash of the names, classes, order and sizes in bytes of all images; the dataset may be moved.

        The contents are not read, so an image replaced by another of the same size in bytes goes unnoticed.

        Raises:
            DataError: an image no longer exists.
        """
        digest = hashlib.blake2b(repr((self.name, self.classes)).encode(), digest_size=16)
        if appearance := self._appearance(orientation=False):
            digest.update(repr(appearance).encode())
        for split, files in self._files.items():
            self._add_files(digest, split, files)
        return digest.hexdigest()

    def split_fingerprint(self, split: Split) -> str:
        """A hash of the names, classes, order and sizes in bytes of a split's images, and of how they are read.

        Raises:
            UnknownName: there is no such split.
            DataError: an image no longer exists.
        """
        digest = hashlib.blake2b(repr((self.name, self.classes)).encode(), digest_size=16)
        digest.update(repr(self._appearance(orientation=True)).encode())
        self._add_files(digest, split, self.files(split))
        return digest.hexdigest()

    def _add_files(self, digest: hashlib.blake2b, split: Split, files: Labelled) -> None:
        digest.update(repr(split).encode())
        for name, label in files:
            try:
                size = (self._path / name).stat().st_size
            except OSError as error:
                raise DataError(f"{self._path / name} no longer exists ({error}); open the dataset again") from error
            digest.update(repr((name, label, size)).encode())

    def recorded_options(self) -> dict[str, JsonValue]:
        """The options to open the data again, as JSON values."""
        return self.options.recorded()

    def _is_gray(self) -> bool:
        return all(is_gray(self._path / name) for name, _ in self._files["train"])

    def _decoded(self, split: Split, index: int) -> Image.Image:
        path = self._path / self._files[split][index][0]
        return self._open(path, str(path))

    def _where(self, split: Split, index: int) -> str:
        return str(self._path / self._files[split][index][0])

    def _label(self, split: Split, index: int) -> int:
        return self._files[split][index][1]


def _folders(path: Path) -> tuple[Path, Path]:
    """The train folder and the val folder."""
    if not path.exists():
        raise DataError(f"{path} does not exist; {LAYOUT}")
    if not path.is_dir():
        raise DataError(f"{path} is a file, not a folder; {LAYOUT}")
    if not (path / "train").is_dir():
        raise DataError(f"{path} has no folder train, only {_some(_names(path))}; {LAYOUT}")
    val = [path / name for name in ("val", "validation") if (path / name).is_dir()]
    if not val:
        raise DataError(f"{path} has no folder val or validation, only {_some(_names(path))}; {LAYOUT}")
    if len(val) == 2:
        raise DataError(f"{path} has both val and validation; remove one")
    return path / "train", val[0]


def _listing(folder: Path, *, like: Listing | None = None) -> Listing:
    """The images of each class in a folder, sorted by name.

    Args:
        folder: ``<path>/train``, ``<path>/val`` or ``<path>/test``.
        like: the listing of the train folder; the classes must be the same.

    Raises:
        DataError: no classes, other classes, or a class without images.
    """
    classes = [entry for entry in _names(folder) if (folder / entry).is_dir()]
    if not classes:
        raise DataError(f"{folder} has no class folders, only {_some(_names(folder))}; {LAYOUT}")
    if like is not None and set(classes) != set(like):
        extra, missing = sorted(set(classes) - set(like)), sorted(set(like) - set(classes))
        raise DataError(
            f"the classes of {folder} and {folder.with_name('train')} differ: "
            f"only in {folder.name}: {_some(extra)}; only in train: {_some(missing)}. They must be the same"
        )
    listing = {}
    for name in classes:
        if {unicodedata.category(c) for c in name} & {"Cc", "Cs"}:  # control characters; bytes that are not UTF-8
            raise DataError(f"the name of the class folder {os.fsencode(folder / name)!r} is not readable; rename it")
        entries = _names(folder / name)
        images = [f"{folder.name}/{name}/{entry}" for entry in entries if entry.lower().endswith(SUFFIXES)]
        if not images:
            raise DataError(
                f"the class folder {folder / name} has no images, only {_some(entries)}; "
                f"images end in {', '.join(SUFFIXES)}. Add some or remove the folder"
            )
        listing[name] = images
    return listing


def _names(folder: Path) -> list[str]:
    """The entries of a folder, sorted, without hidden ones (macOS and Jupyter leave some)."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _some(names: Sequence[str]) -> str:
    """Names for a message: all if few, else the first ones."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(names[:20]) or "nothing") + more
