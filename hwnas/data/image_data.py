"""The interface of datasets of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from hwnas.data.augment import Augmentation, mixed_and_erased
from hwnas.data.base import USUAL, Data, Sampler, Split, check_batch
from hwnas.data.options import Size, sides
from hwnas.errors import InvalidValue
from hwnas.spaces import InputKind

LEAST_RESOLUTION = 8


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """``(n, C, height, width)`` with values in 0..1 -> ``(value - mean) / std`` by channel, contiguous."""
    shape = (1, len(mean), 1, 1)
    return images.sub(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape)).contiguous()


class ImageData(Data):
    """A dataset of labelled images.

    The public methods check their arguments; a dataset implements `_train_batch` and `_batches`.

    Attributes:
        in_channels: channels of an image, 1 or 3.
        mean: mean of the pixels by channel, in the value range of `transform`: 0 to 1 unless the data were opened with
            another.
        std: standard deviation of the pixels by channel, likewise.
        rectangles: whether images may have another width than height. If so, the methods that a dataset implements take
            ``(height, width)`` for such images; the side of squares is an int in any case.
    """

    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rectangles: bool = False
    smallest = LEAST_RESOLUTION

    @property
    def reads(self) -> InputKind:
        """The kind of inputs that a network of these data reads."""
        return InputKind(self.in_channels)

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

    @abstractmethod
    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count` images of a split, `batch_size` at a time."""

    def transform(self, resolution: Size) -> dict[str, object]:
        """The preprocessing that a deployed model requires, as JSON values.

        Args:
            resolution: side of the network's input in pixels, or its height and width (`hwnas.Space.input_size`).

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
