"""The interface of datasets: training batches as a pure function of the step, and fixed splits."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal, cast, get_args

import torch
from pydantic import JsonValue
from torch import Tensor

from hwnas.data.augment import Augmentation, mixed_and_erased
from hwnas.data.options import Size, sides
from hwnas.errors import InvalidValue, UnknownName

Split = Literal["train", "validation", "test"]
Sampler = Literal["shuffled", "balanced"]

LEAST_RESOLUTION = 8
PRESENT = 0.5  # least probability of a class that counts as present in an image with several labels
USUAL = Augmentation()


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends only on the text of its parts, equal in every process and on every machine.

    Python's `hash` of a string differs between processes, and with sums of seeds adjacent streams overlap.
    """
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """``(n, C, height, width)`` with values in 0..1 -> ``(value - mean) / std`` by channel, contiguous."""
    shape = (1, len(mean), 1, 1)
    return images.sub(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape)).contiguous()


class Data(ABC):
    """A dataset of labelled images.

    The public methods check their arguments; a dataset implements `_train_batch` and `_batches`.

    Attributes:
        name: argument of `hwnas.data.open_data`.
        task: name of the task (`hwnas.tasks.TASKS`): "classification", where the label of an image is the index of its
            class, or "multi-label", where it has a probability from 0 to 1 for each class.
        classes: names of the classes.
        in_channels: channels of an image, 1 or 3.
        resolution: native side of a training image in pixels.
        mean: mean of the pixels by channel, in the value range of `transform`: 0 to 1 unless the data were opened with
            another.
        std: standard deviation of the pixels by channel, likewise.
        rectangles: whether images may have another width than height. If so, the methods that a dataset implements take
            ``(height, width)`` for such images; the side of squares is an int in any case.
    """

    name: str
    task: str = "classification"
    classes: tuple[str, ...]
    in_channels: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rectangles: bool = False

    def class_sizes(self, split: Split) -> list[int] | None:
        """Number of images of each class in a split; None if it is not known without decoding them."""
        return None

    @property
    def folder(self) -> str | None:
        """Name of the folder that has the images; None if there is none."""
        return None

    @abstractmethod
    def size(self, split: Split) -> int:
        """Number of images of a split.

        Raises:
            UnknownName: there is no such split.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that is equal for the same data with the same splits."""

    def split_fingerprint(self, split: Split) -> str:
        """A hash of what the images of one split depend on; of all splits, for a dataset that does not override this.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return self.fingerprint()

    def recorded_options(self) -> dict[str, JsonValue] | None:
        """The options to open the data again, as JSON values; None for a dataset that takes none."""
        return None

    @abstractmethod
    def _geometry(self, resolution: int) -> tuple[str, Size, Size | None]:
        """The test transform: the side that it resizes, the new length or size, and the crop, if any.

        The side is "both", "short" or "cover" (`hwnas.data.options.Transform.geometry`), or "none" for a transform that
        does not resize.
        """

    def _value_range(self) -> tuple[float, float]:
        """The values of black and white after scaling."""
        return 0.0, 1.0

    def _decoding(self) -> dict[str, object]:
        """Steps of the test transform that depend on the image file, before the resize."""
        return {}

    @abstractmethod
    def _train_batch(self, places: range, resolution: int, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        """The images at some indices of a training run's endless sequence; random choices depend on the index.

        Photographs are cropped, flipped and coloured according to `how`.
        """

    def _balanced_batch(self, places: range, resolution: int, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        """As `_train_batch`, in a sequence with each class equally often.

        Raises:
            InvalidValue: the dataset does not implement it.
        """
        raise InvalidValue(f'{self.name} has no balanced sampler; write sampler = "shuffled", or set class_weights')

    def train_labels(self) -> Tensor:
        """Labels of all training images, in any order, as `batches` has them.

        This reads all images; datasets that know their labels override it.

        Raises:
            DataError: an image cannot be read.
        """
        return torch.cat([labels for _, labels in self.batches("train", LEAST_RESOLUTION)])

    @abstractmethod
    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count` images of a split, `batch_size` at a time."""

    def transform(self, resolution: Size) -> dict[str, object]:
        """The preprocessing that a deployed model requires, as JSON values.

        Args:
            resolution: side of the network's input in pixels, or its height and width (`hwnas.Space.image_size`).

        Returns:
            ``layout``, ``channels`` and ``dtype`` of the network's input; then, in the order in which they
            apply, ``orientation`` ("EXIF") and ``pixel_range`` where they apply, ``resize`` and ``crop`` (None without
            one; a ``size`` of two numbers is height and width), ``value_range`` (to which pixels are scaled), ``mean``
            and ``std`` (one value per channel).

        Raises:
            InvalidValue: the resolution is too small, or the data have square images only.
        """
        side, size, crop = self._geometry(self._checked(resolution))
        return {
            "layout": "NCHW",
            "channels": "RGB" if self.in_channels == 3 else "L",
            "dtype": "float32",
            **self._decoding(),
            "resize": None
            if side == "none"
            else {"side": side, "size": _json(size), "interpolation": "bilinear", "antialias": True},
            "crop": None if crop is None else {"position": "centre", "size": _json(crop)},
            "value_range": list(self._value_range()),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def train_batch(
        self,
        step: int,
        size: int,
        resolution: Size,
        *,
        seed: int,
        augmentation: Augmentation = USUAL,
        sampler: Sampler = "shuffled",
        part: tuple[int, int] = (0, 1),
    ) -> tuple[Tensor, Tensor]:
        """One augmented batch of the train split: a pure function, so training can be resumed at any step.

        Args:
            step: number of the batch, from 0.
            size: images in the batch.
            resolution: side of the images in pixels, or their height and width.
            seed: of the training run; it determines the batches.
            augmentation: of the images.
            sampler: the order of the images.
            part: index and number of equal parts of the batch: each of several processes takes one.

        Returns:
            Normalised images ``(size / parts, in_channels, height, width)``, float32, and labels: int64
            ``(size / parts,)``; of the task multi-label, or if images are mixed or have shares of several classes,
            probabilities or shares, float32 ``(size / parts, classes)``.

        Raises:
            InvalidValue: a negative step, an empty batch, a batch that cannot be split into such parts (of an even
                number of images if they are mixed), too small a resolution, rectangles of data that have squares only
                or with quarter turns, or a sampler that the data do not have.
            DataError: an image cannot be read.
        """
        if step < 0:
            raise InvalidValue(f"the training step must be at least 0, not {step}")
        check_batch(size, part[1], augmentation)
        checked = self._checked(resolution)
        height, width = sides(resolution)
        if augmentation.quarter_turns and height != width:
            raise InvalidValue(
                "quarter_turns rotates images by 90 degrees, which needs square ones; those of this space have "
                f"{height} x {width} pixels (height x width). Leave it out; flip_vertical = 0.5 works with any size"
            )
        length = size // part[1]
        first = step * size + part[0] * length
        draw = self._balanced_batch if sampler == "balanced" else self._train_batch
        images, labels = draw(range(first, first + length), checked, augmentation, seed)
        return mixed_and_erased(images, labels, len(self.classes), augmentation, seed=seed, first=first)

    def batches(
        self, split: Split, resolution: Size, *, limit: int | None = None, batch_size: int = 250
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """A split in a fixed order, with the test transform (of the train split too).

        Args:
            split: the split.
            resolution: side of the images in pixels, or their height and width.
            limit: largest number of images, from the first on; all if None.
            batch_size: images in a batch; the last one may be smaller.

        Returns:
            Batches of normalised images ``(n, in_channels, height, width)``, float32, and labels: int64 ``(n,)``, or of
            the task multi-label float32 ``(n, classes)``.

        Raises:
            UnknownName: there is no such split.
            InvalidValue: a limit or batch size below 1, too small a resolution, or rectangles of data that have squares
                only.
            DataError: an image cannot be read (raised when its batch is taken).
        """
        available = self.size(split)
        if limit is not None and limit < 1:
            raise InvalidValue(f"the limit must be at least 1 image, not {limit}; omit it to use all {available}")
        check_batch(batch_size, 1)
        checked = self._checked(resolution)
        count = available if limit is None else min(limit, available)
        return self._batches(split, checked, count, batch_size)

    def _checked(self, resolution: Size) -> int:
        """A resolution for the methods of the dataset: height and width only where it takes them.

        Raises:
            InvalidValue: it is too small, or the data have square images only.
        """
        check_resolution(resolution)
        height, width = sides(resolution)
        if height == width:
            return height
        if not self.rectangles:
            raise InvalidValue(
                f"{self.name} has square images, but this space takes images of {height} x {width} pixels (height x "
                "width); use a space without aspect, or the dataset images"
            )
        return cast("int", resolution)  # both, although datasets of squares promise only an int


def check_split(split: str) -> None:
    """Reject an unknown split.

    Raises:
        UnknownName: it is not one of `Split`.
    """
    if split not in get_args(Split):
        raise UnknownName("split", split, get_args(Split))


def check_batch(size: int, processes: int, augmentation: Augmentation = USUAL) -> None:
    """Refuses a batch that processes cannot share.

    Args:
        size: images in the batch.
        processes: each takes an equal part.
        augmentation: what is done to the images.

    Raises:
        InvalidValue: it is empty, or has no such parts (of an even number where images are mixed).
    """
    if size < 1:
        raise InvalidValue(f"a batch must have at least 1 image, not {size}")
    if size % processes:
        raise InvalidValue(f"a batch of {size} images cannot be split evenly among {processes} processes")
    if augmentation.mixes and processes > 1 and size // processes % 2:
        raise InvalidValue(
            f"images are mixed in pairs, and each of {processes} processes would get {size // processes} of {size}: "
            f"choose a batch that is a multiple of {2 * processes}"
        )


def _json(size: Size) -> int | list[int]:
    return list(size) if isinstance(size, tuple) else size


def check_resolution(resolution: Size) -> None:
    """Reject a resolution that is too small.

    Raises:
        InvalidValue: fewer than `LEAST_RESOLUTION` pixels per side.
    """
    if min(sides(resolution)) < LEAST_RESOLUTION:
        shown = "{} x {} (height x width)".format(*resolution) if isinstance(resolution, tuple) else resolution
        raise InvalidValue(f"the resolution must be at least {LEAST_RESOLUTION} pixels, not {shown}")
