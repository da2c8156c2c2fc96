"""The interface of datasets of images."""

from __future__ import annotations

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor

from hwnas.data.augment import Augmentation, mixed_and_erased
from hwnas.data.base import Data, Sampler
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

    A dataset implements `_geometry`, `_train_batch` and `_batches`; their arguments have been checked.

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
    unit = "image"

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

    def _training(
        self, places: range, resolution: int, how: Augmentation, sampler: Sampler, seed: int
    ) -> tuple[Tensor, Tensor]:
        height, width = sides(resolution)
        if how.quarter_turns and height != width:
            raise InvalidValue(
                "quarter_turns rotates images by 90 degrees, which needs square ones; those of this space have "
                f"{height} x {width} pixels (height x width). Leave it out; flip_vertical = 0.5 works with any size"
            )
        draw = self._balanced_batch if sampler == "balanced" else self._train_batch
        images, labels = draw(places, resolution, how, seed)
        return mixed_and_erased(images, labels, len(self.classes), how, seed=seed, first=places.start)

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
