"""How a dataset on disk is read: channels, transform, layout. Part of a job, and stored with a supernet."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, PositiveInt, ValidationError, ValidationInfo, field_validator, model_validator

from hwnas.errors import CheckpointError, InvalidValue
from hwnas.files import Spec

USUAL_CROP = 0.875  # of the short side in the test crop
_DEFAULTS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # of ImageNet, as published weights expect
    1: ((0.449,), (0.226,)),  # their means
}

Pair = Annotated[tuple[float, float], Field(strict=False)]
Statistics = Annotated[tuple[float, ...], Field(strict=False)] | Literal["measured"] | None
Size = int | tuple[int, int]  # of an image in pixels: the side of a square, or height and width


def sides(size: Size) -> tuple[int, int]:
    """Height and width of an image of a size."""
    return size if isinstance(size, tuple) else (size, size)


class Transform(Spec):
    """``[data.transform]``: from an image file to the input of a network.

    The test transform applies to evaluation, re-calibration, parity and int8 ranges, and stands in a bundle's manifest.
    Training decodes and normalises in the same way, with the random crops of ``[training.augmentation]``.

    Attributes:
        resize: "short" scales the short side and keeps the ratio; where the network's images are not square, it scales
            to the smallest size that covers them. "both" scales width and height to those of the network (and changes
            the ratio), "none" leaves the pixels.
        crop: after the resize, the centre is cropped to the size of the network's images, which is this share of the
            size that is resized to; "none" for no crop. By default 0.875 for "short" and "none" for "both". With resize
            "none" the centre is cropped to the size of the network's images, and no share can be given.
        orientation: whether to rotate and flip as the EXIF orientation says.
        pixel_range: values of black and white in images with more than 8 bits per channel; the range of their type if
            None.
        value_range: values of black and white after scaling, before the mean is subtracted.
        mean: one value per channel, in the value range, or "measured" on training images; ImageNet's if None.
        std: likewise.
    """

    resize: Literal["short", "both", "none"] = "short"
    crop: float | Literal["none"] | None = None
    orientation: bool = True
    pixel_range: Pair | None = None
    value_range: Pair = (0.0, 1.0)
    mean: Statistics = None
    std: Statistics = None

    @field_validator("pixel_range", "value_range")
    @classmethod
    def _in_order(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"write the value of black and a larger one of white, not {value[0]:g} and {value[1]:g}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.crop, float | int) and not 0.1 <= self.crop <= 1:
            raise ValueError(f"crop must be a share from 0.1 to 1, or 'none'; not {self.crop:g}")
        if self.resize == "short" and self.crop == "none":
            raise ValueError(
                "crop cannot be 'none' with resize = 'short', which leaves the image oblong; use crop = 1, or "
                "resize = 'both' to keep the whole image"
            )
        if self.resize == "none" and self.crop is not None:
            raise ValueError(
                f"crop cannot be {self.crop!r} with resize = 'none', which crops to the resolution; omit it"
            )
        if isinstance(self.std, tuple) and min(self.std, default=0) <= 0:
            raise ValueError(f"std must be above 0 for each channel, not {list(self.std)}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, tuple) and len(values) not in (1, 3):
                raise ValueError(f"{name} must have 1 or 3 values, one per channel, not {len(values)}")
        return self

    @property
    def share(self) -> float | None:
        """Share of the resized side in the test crop; None without a crop, or without a resize."""
        if self.crop == "none" or self.resize == "none":
            return None
        return self.crop if self.crop is not None else USUAL_CROP if self.resize == "short" else None

    def geometry(self, size: Size) -> tuple[Literal["short", "cover", "both", "none"], Size, Size | None]:
        """How to resize, the new length or size in pixels, and the size of the centre crop, if any.

        For images that are not square, "cover" takes the place of "short": the smallest size with the image's ratio
        that is at least as high and as wide.

        Args:
            size: of the network's images.
        """
        if self.resize == "none":
            return "none", size, size
        if self.share is None:
            return self.resize, size, None
        if not isinstance(size, tuple):
            return self.resize, round(size / self.share), size
        height, width = (round(side / self.share) for side in size)
        return "cover" if self.resize == "short" else self.resize, (height, width), size

    def statistics(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation by channel, in the value range; ImageNet's for those not given or not measured.

        Raises:
            ValueError: another number of values than channels.
        """
        low, high = self.value_range
        mean, std = _DEFAULTS[channels]
        if self.value_range != (0.0, 1.0):
            mean, std = tuple(low + (high - low) * m for m in mean), tuple((high - low) * s for s in std)
        chosen = [given if isinstance(given, tuple) else usual for given, usual in ((self.mean, mean), (self.std, std))]
        for name, values in zip(("mean", "std"), chosen, strict=True):
            if len(values) != channels:
                raise ValueError(
                    f"{name} in [data.transform] has {len(values)} values, but the images are read with {channels} "
                    f"channel{'' if channels == 1 else 's'}; write {channels}, or set [data] channels"
                )
        return chosen[0], chosen[1]


class DataOptions(Spec):
    """How a dataset on disk is read: the keys of a job's ``[data]`` besides ``name`` and ``path``.

    Attributes:
        channels: 1 for gray, 3 for colour; None for gray if all training images store gray pixels.
        labels: CSV file with the columns ``file``, ``label`` and optionally ``split``, or with one column of shares
            per class in place of ``label`` (`hwnas.data.label_files`); a relative path starts at the dataset's folder.
        multi_label: whether the classes of an image are independent of each other: `labels` contains several names
            separated by semicolons, or the probability of each class in its column.
        split: shares of the train, validation and test split, of data that are not split into folders.
        split_seed: determines that split.
        skip_bad: whether images that cannot be read are left out; all are decoded once to find them.
        skip: images to leave out, as paths below the dataset's folder.
        transform: from an image file to the input of a network.
        length: longest sequence that the dataset generates, in tokens (listops).
        side: of the images that the dataset generates, in pixels (pathfinder).
    """

    channels: Literal[1, 3] | None = None
    labels: str | None = None
    # Excluded by default: hashes of older versions lack it.
    multi_label: bool = Field(default=False, exclude_if=lambda several: not several)
    split: Annotated[tuple[float, float, float], Field(strict=False)] | None = None
    split_seed: int = Field(default=0, ge=0, le=2**32 - 1)
    skip_bad: bool = False
    skip: Annotated[tuple[str, ...], Field(strict=False)] = ()
    transform: Transform = Transform()
    length: PositiveInt | None = Field(default=None, exclude_if=lambda length: length is None)
    side: PositiveInt | None = Field(default=None, exclude_if=lambda side: side is None)

    @field_validator("multi_label")
    @classmethod
    def _listed(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("labels") is None:
            raise ValueError("several labels per image need labels, a CSV file that lists them")
        return value

    @field_validator("split", mode="before")
    @classmethod
    def _shares(cls, value: object) -> object:
        shares = list(value) if isinstance(value, list | tuple) else [value]
        numbers = [share for share in shares if isinstance(share, int | float) and not isinstance(share, bool)]
        usable = len(shares) == len(numbers) == 3 and min(numbers) > 0 and math.isfinite(sum(numbers))
        if value is not None and not usable:
            raise ValueError(f"split is three shares above 0, e.g. [70, 15, 15]; not {shares}")
        return value

    @field_validator("skip")
    @classmethod
    def _below(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"skip lists paths below the dataset's folder, not {name}")
        return value

    def recorded(self) -> dict[str, JsonValue]:
        """The options that differ from the defaults, as JSON values; read by `read_options`."""
        found: dict[str, JsonValue] = self.model_dump(mode="json", exclude_defaults=True)
        return found


def read_options(recorded: Mapping[str, JsonValue]) -> DataOptions:
    """The options that a supernet's facts contain.

    Raises:
        CheckpointError: they are malformed.
    """
    try:
        return DataOptions.model_validate_json(json.dumps(recorded))
    except ValidationError as error:
        raise CheckpointError(f"the data options of the supernet are malformed: {error}") from error


def older_options(channels: int) -> DataOptions:
    """The options of supernets whose facts contain none: EXIF orientation was ignored, gray images became RGB."""
    return DataOptions(channels=1 if channels == 1 else 3, transform=Transform(orientation=False))


def check_only(options: DataOptions, name: str, known: tuple[str, ...] = ("channels", "transform")) -> None:
    """Refuse options that a dataset does not take.

    Raises:
        InvalidValue: an option besides the known ones is set.
    """
    if more := [key for key in options.model_dump(exclude_defaults=True) if key not in known]:
        takes = f"only {', '.join(known)}" if known else "no options"
        raise InvalidValue(f"the dataset {name} takes {takes}; omit {', '.join(more)}, or use the dataset images")
