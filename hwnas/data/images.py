"""Image folders in the layout of ImageNet, read with Pillow."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import JsonValue

from hwnas.data.base import PRESENT, Split, check_split, stable_seed
from hwnas.data.check import check_images
from hwnas.data.decode import is_gray
from hwnas.data.layouts import empty_classes, printable, read_layout
from hwnas.data.options import DataOptions
from hwnas.data.photographs import Photographs, ordered
from hwnas.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Labelled = tuple[tuple[str, int], ...]  # path and class index, in the order of `Data.batches`

USUAL_OPTIONS = DataOptions()


class Images(Photographs):
    """An image folder: ``train/<class>/*``, ``val/<class>/*`` (or ``validation``), optionally ``test/<class>/*``.

    Without a test folder, the val folder is the test split, and the validation split is held out of the
    training images: a tenth, at most 10,000, in proportion to the classes (but at least one of each). They
    are not trained on. This is once-for-all's convention: the images that select an architecture are not
    those that evaluate it. With a test folder, each folder is a split.

    `DataOptions` has other layouts: ``<class>/*``, which is split by shares, and a CSV file of labels. Folders below a
    class folder belong to the class. Where that file has shares of several classes, they are the targets of a training;
    evaluation takes the class with the largest share. With `DataOptions.multi_label` the task is multi-label.

    A split is shuffled once and then stratified: any run of images has the classes in their shares of the split.
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

    Attributes:
        path: the dataset's folder.
        empty: class folders without images in any split that `listed` left out.

    Raises:
        DataError: the folder does not have that layout, or the options do not fit the images.
    """

    name = "images"
    empty: tuple[str, ...] = ()

    def __init__(self, path: Path, *, seed: int = 0, options: DataOptions = USUAL_OPTIONS) -> None:
        self.path = path
        if options.skip_bad:
            options = check_images(Images.listed(path, options, seed=seed)).leaving_out(options)
        self._list(options, seed)
        self._configure(options, self._is_gray)

    @classmethod
    def listed(cls, path: Path, options: DataOptions = USUAL_OPTIONS, *, seed: int = 0) -> Images:
        """The files of a dataset for a check: no image is opened, and channels and mean are not known.

        Class folders without images in any split are left out; they are in `empty`.

        Raises:
            DataError: the folder does not have that layout.
        """
        data = cls.__new__(cls)
        data.path = path
        known = path.is_dir() and options.labels is None
        data.empty = tuple(map(printable, empty_classes(path, options))) if known else ()
        data._list(options.model_copy(update={"skip": (*options.skip, *data.empty)}), seed)
        return data

    def _list(self, options: DataOptions, seed: int) -> None:
        layout = read_layout(self.path, options, seed)
        self.options = options
        self.task = "multi-label" if options.multi_label else "classification"
        self.classes, self._targets = layout.classes, layout.targets
        self._files = {split: ordered(found, stable_seed(split, seed)) for split, found in layout.files.items()}

    @property
    def folder(self) -> str:
        """Name of the dataset's folder."""
        return self.path.resolve().name

    def size(self, split: Split) -> int:
        """Number of images of a split.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return len(self._files[split])

    def files(self, split: Split) -> Labelled:
        """The images of a split in the order of `batches`: paths below the dataset's folder, and labels.

        Of several labels it is the rarest one, and the number of classes without any.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return tuple(self._files[split][index] for index in self._stratified(split))

    def class_sizes(self, split: Split) -> list[int]:
        """Number of images of each class in a split.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        if self.task == "classification":
            found = Counter(label for _, label in self._files[split])
            return [found[label] for label in range(len(self.classes))]
        labels = [self._targets[name] for name, _ in self._files[split]]
        return [sum(values[label] >= PRESENT for values in labels) for label in range(len(self.classes))]

    def fingerprint(self) -> str:
        """A hash of the names, classes, order and sizes in bytes of all images; the dataset may be moved.

        The contents are not read, so an image replaced by another of the same size in bytes goes unnoticed.

        Raises:
            DataError: an image no longer exists.
        """
        digest = self._digest()
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
        digest = self._digest()
        digest.update(repr(self._appearance(orientation=True)).encode())
        self._add_files(digest, split, self.files(split))
        return digest.hexdigest()

    def listing_hash(self) -> str:
        """A hash of the names, sizes and times of change of all images and of how they are decoded.

        With the same hash, a check of the data gives the same result. Missing files are allowed.
        """
        digest = hashlib.blake2b(repr(self.options.model_dump(exclude={"skip_bad"})).encode(), digest_size=16)
        for split, files in self._files.items():
            for name, label in files:
                try:
                    found = (self.path / name).stat()
                    seen = (found.st_size, found.st_mtime_ns)
                except OSError:
                    seen = (-1, -1)
                digest.update(repr((split, name, label, *seen)).encode())
        return digest.hexdigest()

    def _digest(self) -> hashlib.blake2b:
        several = () if self.task == "classification" else (self.task,)
        return hashlib.blake2b(repr((self.name, self.classes, *several)).encode(), digest_size=16)

    def _add_files(self, digest: hashlib.blake2b, split: Split, files: Labelled) -> None:
        digest.update(repr(split).encode())
        if self._targets:
            digest.update(repr([self._targets[name] for name, _ in files]).encode())
        for name, label in files:
            try:
                size = (self.path / name).stat().st_size
            except OSError as error:
                raise DataError(f"{self.path / name} no longer exists ({error}); open the dataset again") from error
            digest.update(repr((name, label, size)).encode())

    def recorded_options(self) -> dict[str, JsonValue]:
        """The options to open the data again, as JSON values."""
        return self.options.recorded()

    def channels_of_headers(self, bad: Collection[str]) -> int:
        """1 if all training images besides some store gray pixels, else 3."""
        names = (name for name, _ in self._files["train"] if printable(name) not in bad)
        return 1 if all(is_gray(self.path / name) for name in names) else 3

    def _is_gray(self) -> bool:
        return self.channels_of_headers(()) == 1

    def decode(self, source: Path | BinaryIO, name: str) -> Image.Image:
        """An image file as this dataset reads it, before resize and crop; `name` stands for it in messages.

        Raises:
            DataError: it cannot be read.
        """
        return self._open(source, name)

    def _decoded(self, split: Split, index: int) -> Image.Image:
        path = self.path / self._files[split][index][0]
        return self._open(path, str(path))

    def _where(self, split: Split, index: int) -> str:
        return str(self.path / self._files[split][index][0])

    def _label(self, split: Split, index: int) -> int:
        return self._files[split][index][1]

    def _target(self, index: int) -> int | tuple[float, ...]:
        name, label = self._files["train"][index]
        return self._targets.get(name, label)

    def _truth(self, split: Split, index: int) -> int | tuple[float, ...]:
        name, label = self._files[split][index]
        return label if self.task == "classification" else self._targets[name]
