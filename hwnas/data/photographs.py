"""Common parts of datasets of photographs: from a photograph to the input of a network."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hwnas.data.augment import Augmentation, photograph
from hwnas.data.base import Split, stable_seed
from hwnas.data.decode import opened
from hwnas.data.geometry import fitted
from hwnas.data.image_data import ImageData, normalised
from hwnas.data.options import DataOptions, Size, Transform
from hwnas.data.sampling import Balanced, shuffled
from hwnas.errors import DataError, InvalidValue

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

HOLD_OUT_SHARE, HOLD_OUT_MOST = 0.1, 10_000
MEASURED_IMAGES = 2000  # training images whose pixels give a measured mean and std
THREADS = 4  # Pillow releases the GIL while it decodes


class Photographs(ImageData):
    """Labelled photographs, in colour or gray.

    A training epoch contains every image once, randomly cropped; for test images `Transform` applies: by default the
    short side is resized to ``resolution / 0.875`` and the centre cropped. A dataset implements `_decoded` and
    `_label`, and calls `_configure` when its images can be decoded.

    Attributes:
        options: how the images are read; a measured mean and the channels of the images are recorded in it.
    """

    in_channels = 3
    resolution = 224
    rectangles = True
    mean, std = Transform().statistics(3)
    options = DataOptions()

    def _configure(self, options: DataOptions, gray: Callable[[], bool]) -> None:
        """Set channels, mean and std.

        Args:
            options: how the images are read.
            gray: whether all training images store gray pixels; called if the options leave the channels open.

        Raises:
            DataError: the options do not fit the images, or an image that is measured cannot be read.
        """
        channels = options.channels or (1 if gray() else 3)
        how = options.transform
        self.in_channels = channels
        self.options = options.model_copy(update={"channels": channels})
        if "measured" in (how.mean, how.std):
            mean, std = self._measured()
            given = {"mean": mean if how.mean == "measured" else how.mean}
            given["std"] = std if how.std == "measured" else how.std
            how = how.model_copy(update=given)
            self.options = self.options.model_copy(update={"transform": how})
        try:
            self.mean, self.std = how.statistics(channels)
        except ValueError as error:
            raise DataError(str(error)) from error

    def _measured(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the pixels of training images by channel, in the value range.

        Every image has the same weight, whatever its size.

        Raises:
            DataError: an image cannot be read, or all pixels of a channel are equal.
        """
        count = self.size("train")
        indices = [shuffled(count, 0, place) for place in range(min(count, MEASURED_IMAGES))]

        def moments(index: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
            pixels = np.asarray(self._decoded("train", index), np.float64).reshape(-1, self.in_channels) / 255
            return pixels.mean(axis=0), (pixels**2).mean(axis=0)

        with ThreadPoolExecutor(THREADS) as pool:
            first, second = (sum(each) / len(indices) for each in zip(*pool.map(moments, indices), strict=True))
        variance = np.maximum(second - first**2, 0)
        if not (variance > 1e-10).all():
            raise DataError("the standard deviation cannot be measured: the training images are all of one value")
        low, high = self.options.transform.value_range
        mean, std = low + (high - low) * first, (high - low) * np.sqrt(variance)
        return tuple(round(float(m), 4) for m in mean), tuple(float(f"{s:.4g}") for s in std)

    def _appearance(self, *, orientation: bool) -> dict[str, object]:
        """What pixels depend on besides the files, for fingerprints; empty for RGB by the default transform.

        Args:
            orientation: whether the EXIF orientation counts; fingerprints of older versions are without it.
        """
        transform = self.options.transform.model_dump(exclude_defaults=True)
        if not orientation:
            transform.pop("orientation", None)
        return ({"channels": self.in_channels} if self.in_channels != 3 else {}) | transform

    def _open(self, source: Path | BinaryIO, name: str) -> Image.Image:
        """An image in the dataset's channels; `name` stands for it in messages.

        Raises:
            DataError: it cannot be read.
        """
        how = self.options.transform
        return opened(source, name, channels=self.in_channels, orientation=how.orientation, pixel_range=how.pixel_range)

    def _where(self, split: Split, index: int) -> str:
        """An image in messages."""
        return f"image {index} of {split}"

    def _decoding(self) -> dict[str, object]:
        how = self.options.transform
        steps: dict[str, object] = {"orientation": "EXIF"} if how.orientation else {}
        if how.pixel_range:
            steps["pixel_range"] = list(how.pixel_range)
        return steps

    @abstractmethod
    def _decoded(self, split: Split, index: int) -> Image.Image:
        """An image of a split in the dataset's channels; called from several threads.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def _label(self, split: Split, index: int) -> int:
        """The class of an image; of several labels the rarest one, and the number of classes without any."""

    def _truth(self, split: Split, index: int) -> int | tuple[float, ...]:
        """What an evaluation compares outputs with: the class of an image, or of several labels the probabilities."""
        return self._label(split, index)

    def _target(self, index: int) -> int | tuple[float, ...]:
        """What a training learns for a training image: `_truth`, or for all images the shares of the classes."""
        return self._truth("train", index)

    def _geometry(self, resolution: Size) -> tuple[str, Size, Size | None]:
        return self.options.transform.geometry(resolution)

    def _value_range(self) -> tuple[float, float]:
        return self.options.transform.value_range

    def _train_batch(self, places: range, resolution: Size, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        count = self.size("train")
        return self._augmented([shuffled(count, seed, place) for place in places], places, resolution, how, seed)

    def _balanced_batch(self, places: range, resolution: Size, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        if self.task != "classification":
            raise InvalidValue(
                f'{self.name} has images with several labels, of which sampler = "balanced" cannot draw each class '
                'equally often; write sampler = "shuffled", or set class_weights'
            )
        return self._augmented([self._balanced(seed, place) for place in places], places, resolution, how, seed)

    @cached_property
    def _balanced(self) -> Balanced:
        return Balanced(self.train_labels())

    def train_labels(self) -> Tensor:
        """Labels of all training images; no image is decoded."""
        return torch.tensor([self._truth("train", index) for index in range(self.size("train"))])

    def _augmented(
        self, indices: Sequence[int], places: range, resolution: Size, how: Augmentation, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Training images; the random choices depend on their places in the run."""
        native = self.options.transform.resize == "none"

        def crop(index: int, image: Image.Image) -> Image.Image:
            rng = random.Random(stable_seed("crop", seed, places[index]))
            if not how.crop:
                image = fitted(image, resolution, self.options.transform)
            return photograph(image, resolution, how, rng, native=native or not how.crop)

        images = self._load("train", indices, crop)
        return images, torch.tensor([self._target(index) for index in indices])

    def _batches(self, split: Split, resolution: Size, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._stratified(split)
        for start in range(0, count, batch_size):
            indices = order[start : min(start + batch_size, count)]
            images = self._load(split, indices, lambda _, image: fitted(image, resolution, self.options.transform))
            yield images, torch.tensor([self._truth(split, index) for index in indices])

    def _stratified(self, split: Split) -> Sequence[int]:
        """The images of a split in the order of `batches`: every run of images has the classes in their shares.

        Images with several labels are stratified by the rarest one.

        Equal numbers of each class would give another accuracy: 68 to 80% on 100 images of solar cells, of which 31%
        are defective, for a network with 82% on all of them.
        """
        if split not in self._orders:
            labels = [self._label(split, index) for index in range(self.size(split))]
            self._orders[split] = stratified(labels)
        return self._orders[split]

    @cached_property
    def _orders(self) -> dict[Split, list[int]]:
        return {}

    def _load(self, split: Split, indices: Sequence[int], crop: Callable[[int, Image.Image], Image.Image]) -> Tensor:
        """Decode images of a split; `crop` gets an image and its index in the batch."""

        def pixels(place: int) -> npt.NDArray[np.uint8]:
            image = self._decoded(split, indices[place])
            try:
                return np.asarray(crop(place, image), np.uint8)
            except ValueError as error:
                raise DataError(f"{self._where(split, indices[place])} {error}") from error

        # Starting threads costs less than decoding one image, and leaves no idle threads.
        with ThreadPoolExecutor(THREADS) as pool:
            stack = np.stack(list(pool.map(pixels, range(len(indices)))))
        stack = stack if stack.ndim == 4 else stack[..., None]  # gray
        images = torch.from_numpy(stack).permute(0, 3, 1, 2).float().div_(255)
        if (values := self._value_range()) != (0.0, 1.0):
            images.mul_(values[1] - values[0]).add_(values[0])
        return normalised(images, self.mean, self.std)


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


def stratified(labels: Sequence[int]) -> list[int]:
    """An order of images in which every run has the shares of the classes, up to one image a class.

    The k-th of the n images of a class is put at (k + 1/2) / n of the way.

    Args:
        labels: of the images, in any order.

    Returns:
        indices of the images.
    """
    sizes, seen = Counter(labels), Counter[int]()
    places = []
    for index, label in enumerate(labels):
        places.append(((seen[label] + 0.5) / sizes[label], label, index))
        seen[label] += 1
    return [index for _, _, index in sorted(places)]
