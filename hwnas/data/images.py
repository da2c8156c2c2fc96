"""Image folders in the layout of ImageNet, read with Pillow."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwnas.data.base import Data, Split, check_split, normalised, stable_seed
from hwnas.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Listing = dict[str, list[str]]  # class -> its images, as paths below the dataset's folder
Labelled = tuple[tuple[str, int], ...]  # such a path and the index of its class, in the order of `Data.batches`

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LAYOUT = "an image folder has train/<class>/ and val/<class>/ with images in them"

CROP_SHARE = 0.875  # of the short side that the test crop shows
CROP_AREA = (0.08, 1.0)  # of a random crop, as a share of the image
CROP_RATIO = (3 / 4, 4 / 3)  # width to height of a random crop
CROP_TRIES = 10

HOLD_OUT_SHARE, HOLD_OUT_MOST = 0.1, 10_000
THREADS = 4  # Pillow decodes without holding Python's lock


class Images(Data):
    """An image folder: ``train/<class>/*``, ``val/<class>/*`` (or ``validation``), maybe ``test/<class>/*``.

    Without a test folder, the val folder is the test split, and the validation split is held out of the
    training images: a tenth, at most 10,000, in proportion to the classes (but at least one of each). Those
    are then not trained on. This is once-for-all's convention: the images that choose an architecture are not
    those that judge it. With a test folder, each folder is its split.

    A split's order is shuffled once and goes round the classes, so that the first images cover all of them.
    An epoch of training shows every image once. Training images are cropped at random and flipped; test
    images have their short side resized to ``resolution / 0.875`` and their centre cropped. Names that start
    with a dot and files with other suffixes are left out; EXIF orientation is not applied, as is usual for
    such folders.

    Opening lists the folders and decodes nothing.

    Args:
        path: the dataset's folder.
        seed: decides the hold-out and the order of the splits. Leave it at 0 to compare with others.

    Raises:
        DataError: the folder is not of that form.
    """

    name = "images"
    in_channels = 3
    resolution = 224
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which published weights expect

    def __init__(self, path: Path, *, seed: int = 0) -> None:
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
            kept, held_out = _hold_out(train, train_folder, seed)
            listings = {"train": kept, "validation": held_out, "test": val}
        self.classes = tuple(train)
        self._files = {split: _ordered(found, stable_seed(split, seed)) for split, found in listings.items()}

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

        The contents are not read, so an image replaced by another of the very same size goes unnoticed.

        Raises:
            DataError: an image is gone.
        """
        digest = hashlib.blake2b(repr((self.name, self.classes)).encode(), digest_size=16)
        for split, files in self._files.items():
            digest.update(repr(split).encode())
            for name, label in files:
                try:
                    size = (self._path / name).stat().st_size
                except OSError as error:
                    raise DataError(f"{self._path / name} is gone ({error}); open it anew") from error
                digest.update(repr((name, label, size)).encode())
        return digest.hexdigest()

    def _geometry(self, resolution: int) -> tuple[str, int, int | None]:
        return "short", round(resolution / CROP_SHARE), resolution

    def _train_batch(self, step: int, size: int, resolution: int, seed: int) -> tuple[Tensor, Tensor]:
        count = self.size("train")
        shown = range(step * size, (step + 1) * size)
        indices = [int(_epoch(count, seed, number // count)[number % count]) for number in shown]

        def crop(index: int, image: Image.Image) -> Image.Image:
            return _random_crop(image, resolution, random.Random(stable_seed("crop", seed, step, index)))

        return self._load("train", indices, crop)

    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, count, batch_size):
            indices = range(start, min(start + batch_size, count))
            yield self._load(split, indices, lambda _, image: _centre_crop(image, resolution))

    def _load(
        self, split: Split, indices: Sequence[int], crop: Callable[[int, Image.Image], Image.Image]
    ) -> tuple[Tensor, Tensor]:
        """Decodes images of a split; `crop` is given an image and its place in the batch."""
        files = self._files[split]

        def pixels(place: int) -> Pixels:
            image = crop(place, _decoded(self._path / files[indices[place]][0]))
            return np.asarray(image, np.uint8)

        # Starting threads costs less than one image, and none is left behind.
        with ThreadPoolExecutor(THREADS) as pool:
            stack = np.stack(list(pool.map(pixels, range(len(indices)))))
        images = torch.from_numpy(stack).permute(0, 3, 1, 2).float().div_(255)
        return normalised(images, self.mean, self.std), torch.tensor([files[i][1] for i in indices])


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
        raise DataError(f"{path} has both val and validation; keep the one that is meant")
    return path / "train", val[0]


def _listing(folder: Path, *, like: Listing | None = None) -> Listing:
    """The images of each class in a folder, sorted by name.

    Args:
        folder: ``<path>/train`` and the like.
        like: the listing of the train folder, whose classes this one must have.

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
    """What a folder holds, sorted, without hidden entries (macOS and Jupyter leave some)."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _some(names: Sequence[str]) -> str:
    """Names for a message: all of a few, the first of many."""
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(names[:20]) or "nothing") + more


def _hold_out(train: Listing, folder: Path, seed: int) -> tuple[Listing, Listing]:
    """Parts the training images into those that are kept and those that are held out for validation."""
    share = min(HOLD_OUT_SHARE, HOLD_OUT_MOST / sum(map(len, train.values())))
    kept, held_out = {}, {}
    for name, images in train.items():
        if len(images) < 2:
            raise DataError(
                f"{folder / name} has 1 image; without a test folder some of each class are held out for "
                "validation, so a class needs at least 2"
            )
        shuffled = random.Random(stable_seed("hold out", seed, name)).sample(images, len(images))
        count = max(1, int(share * len(images)))
        held_out[name], kept[name] = shuffled[:count], shuffled[count:]
    return kept, held_out


def _ordered(listing: Listing, seed: int) -> Labelled:
    """Shuffles the images so that each round shows one of every class that has some left."""
    rng = random.Random(seed)
    entries: list[tuple[int, float, int, str]] = []
    for label, names in enumerate(listing.values()):
        shuffled = rng.sample(names, len(names))
        entries += [(turn, rng.random(), label, name) for turn, name in enumerate(shuffled)]
    entries.sort()
    return tuple((name, label) for _, _, label, name in entries)


@lru_cache(maxsize=2)
def _epoch(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the training images in an epoch. Two are kept, as a batch may reach into the next."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(stable_seed("epoch", seed, epoch)))


def _decoded(path: Path) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip these to white
                raise ValueError(f"its mode is {image.mode}, with more than 8 bits a channel; convert it to 8")
            return image.convert("RGB")
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, struct.error and others
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error


def _centre_crop(image: Image.Image, resolution: int) -> Image.Image:
    from PIL import Image

    short = round(resolution / CROP_SHARE)
    width, height = (round(side * short / min(image.size)) for side in image.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + resolution, top + resolution))


def _random_crop(image: Image.Image, resolution: int, rng: random.Random) -> Image.Image:
    from PIL import Image

    crop = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=_crop_box(image.size, rng))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def _crop_box(size: tuple[int, int], rng: random.Random) -> tuple[float, float, float, float]:
    """A random part of an image: left, top, right and bottom in pixels."""
    width, height = size
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(*map(math.log, CROP_RATIO)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, min(left + w, width), min(top + h, height)
    # Too long an image for its area: its middle, with the nearest ratio that is allowed.
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    w, h = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h
