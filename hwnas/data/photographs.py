"""Common parts of datasets of photographs: from a photograph to the input of a network."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwnas.data.augment import Augmentation, photograph
from hwnas.data.base import Data, Split, normalised, stable_seed
from hwnas.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

CROP_SHARE = 0.875  # of the short side in the test crop
HOLD_OUT_SHARE, HOLD_OUT_MOST = 0.1, 10_000
ELONGATED = 16  # aspect ratio beyond which only the crop is resized
THREADS = 4  # Pillow releases the GIL while it decodes


class Photographs(Data):
    """Labelled photographs in colour.

    A training epoch contains every image once, randomly cropped; for test images the short side is resized to
    ``resolution / 0.875`` and the centre cropped. A dataset implements `_decoded` and `_label`.
    """

    in_channels = 3
    resolution = 224
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as published weights expect

    @abstractmethod
    def _decoded(self, split: Split, index: int) -> Image.Image:
        """An image of a split in RGB; called from several threads.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def _label(self, split: Split, index: int) -> int: ...

    def _geometry(self, resolution: int) -> tuple[str, int, int | None]:
        return "short", round(resolution / CROP_SHARE), resolution

    def _train_batch(self, places: range, resolution: int, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        count = self.size("train")
        indices = [int(_epoch(count, seed, place // count)[place % count]) for place in places]

        def crop(index: int, image: Image.Image) -> Image.Image:
            rng = random.Random(stable_seed("crop", seed, places[index]))
            return photograph(image, resolution, how, rng)

        return self._load("train", indices, crop)

    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, count, batch_size):
            indices = range(start, min(start + batch_size, count))
            yield self._load(split, indices, lambda _, image: _centre_crop(image, resolution))

    def _load(
        self, split: Split, indices: Sequence[int], crop: Callable[[int, Image.Image], Image.Image]
    ) -> tuple[Tensor, Tensor]:
        """Decode images of a split; `crop` gets an image and its index in the batch."""

        def pixels(place: int) -> npt.NDArray[np.uint8]:
            return np.asarray(crop(place, self._decoded(split, indices[place])), np.uint8)

        # Starting threads costs less than decoding one image, and leaves no idle threads.
        with ThreadPoolExecutor(THREADS) as pool:
            stack = np.stack(list(pool.map(pixels, range(len(indices)))))
        images = torch.from_numpy(stack).permute(0, 3, 1, 2).float().div_(255)
        return normalised(images, self.mean, self.std), torch.tensor([self._label(split, i) for i in indices])


def held_out(train: Mapping[str, list[T]], where: Path, seed: int) -> tuple[dict[str, list[T]], dict[str, list[T]]]:
    """Split the training images of each class into those for training and those held out for validation.

    A tenth is held out, at most 10,000, in proportion to the classes (but at least one of each).

    Raises:
        DataError: a class has fewer than two images.
    """
    share = min(HOLD_OUT_SHARE, HOLD_OUT_MOST / sum(map(len, train.values())))
    kept, out = {}, {}
    for name, images in train.items():
        if len(images) < 2:
            raise DataError(
                f"{where / name} has {len(images)} image{'' if len(images) == 1 else 's'}; some of each class are held "
                "out for validation, so a class needs at least 2"
            )
        shuffled = random.Random(stable_seed("hold out", seed, name)).sample(images, len(images))
        count = max(1, int(share * len(images)))
        out[name], kept[name] = shuffled[:count], shuffled[count:]
    return kept, out


def ordered(images: Mapping[str, list[T]], seed: int) -> tuple[tuple[T, int], ...]:
    """Shuffle the images of each class and order them round-robin by class.

    Returns:
        each image with the index of its class.
    """
    rng = random.Random(seed)
    entries: list[tuple[int, float, int, T]] = []
    for label, names in enumerate(images.values()):
        shuffled = rng.sample(names, len(names))
        entries += [(turn, rng.random(), label, name) for turn, name in enumerate(shuffled)]
    entries.sort(key=lambda entry: entry[:3])
    return tuple((name, label) for _, _, label, name in entries)


@lru_cache(maxsize=2)
def _epoch(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the training images in an epoch. Two are cached, because a batch may extend into the next epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(stable_seed("epoch", seed, epoch)))


def _centre_crop(image: Image.Image, resolution: int) -> Image.Image:
    from PIL import Image

    short = round(resolution / CROP_SHARE)
    width, height = (round(side * short / min(image.size)) for side in image.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    if max(width, height) > ELONGATED * short:  # a strip: crop first, as the whole may not fit into the memory
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + resolution) * x, (top + resolution) * y)
        return image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + resolution, top + resolution))
