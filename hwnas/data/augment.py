"""Augmentation of training images: a pure function of the seed and the image's index in the run.

Crops, flips and colours apply to single photographs when they are decoded; mixing and erasing apply to batches.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, JsonValue, ValidationInfo, field_validator
from torch import Tensor
from torch.nn import functional

from hwnas.data.geometry import check_native
from hwnas.data.options import Size, sides
from hwnas.files import Spec

if TYPE_CHECKING:
    from PIL import Image

CROP_TRIES = 10
ERASED_AREA = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)

# Name -> keys of `Augmentation` that differ from their defaults.
PRESETS: dict[str, dict[str, JsonValue]] = {
    "photograph": {},
    "whole": {"crop": False, "shift": 0.05},
    "any-orientation": {"crop": False, "shift": 0.05, "flip_vertical": 0.5, "quarter_turns": True},
    "none": {"crop": False, "flip": 0.0},
}


class Augmentation(Spec):
    """``[augmentation]`` of a training config.

    Attributes:
        crop: whether photographs are randomly cropped; otherwise they are prepared as test images are, and `crop_area`
            and `crop_ratio` do not apply.
        crop_area: share of a photograph in a random crop, minimum and maximum (Szegedy et al. 2015).
        crop_ratio: width to height of a crop, minimum and maximum, as multiples of those of the network's images.
        flip: probability of a horizontal flip.
        flip_vertical: probability of a vertical flip.
        quarter_turns: whether to rotate square images by 0, 90, 180 or 270 degrees, each with the same probability.
        shift: share of the side by which a photograph moves at most in each direction; its edge pixels are repeated.
        colour: brightness, contrast and saturation vary by up to this share, in random order.
        mixup: alpha of the Beta distribution of the shares in which two images are blended, 0 for none (Zhang et al.,
            "mixup: Beyond Empirical Risk Minimization", ICLR 2018).
        cutmix: alpha of the share of a box from another image, 0 for none (Yun et al., "CutMix", ICCV 2019). With
            both, each pair of images is mixed one way or the other.
        erase: probability that a box of an image is blanked (Zhong et al., "Random Erasing Data Augmentation", 2020).
    """

    # Defaults are left out: stages and checkpoints of former versions are without these keys.
    crop: bool = Field(default=True, exclude_if=lambda crop: crop)
    flip_vertical: float = Field(default=0.0, ge=0, le=1, exclude_if=lambda flip: not flip)
    quarter_turns: bool = Field(default=False, exclude_if=lambda turns: not turns)
    shift: float = Field(default=0.0, ge=0, le=0.5, exclude_if=lambda shift: not shift)
    crop_area: tuple[float, float] = Field(default=(0.08, 1.0), strict=False)
    crop_ratio: tuple[float, float] = Field(default=(3 / 4, 4 / 3), strict=False)
    flip: float = Field(default=0.5, ge=0, le=1)
    colour: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0, le=100)
    cutmix: float = Field(default=0.0, ge=0, le=100)
    erase: float = Field(default=0.0, ge=0, le=1)

    @field_validator("crop_area", "crop_ratio")
    @classmethod
    def _in_order(cls, value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        least, most = value
        top = 1 if info.field_name == "crop_area" else math.inf
        if not 0 < least <= most <= top:
            raise ValueError(
                f"a minimum above 0 and a maximum{', at most 1' if top == 1 else ''}; not {least} and {most}"
            )
        return value

    @property
    def mixes(self) -> bool:
        """Whether pairs of images are mixed."""
        return self.mixup > 0 or self.cutmix > 0


def calibration_augmentation(trained: Augmentation) -> Augmentation:
    """The augmentation of images that re-calibrate BN after a training: the usual one, if the training crops images.

    A training without crops sees whole images, turned and moved; statistics of small parts of them would not be its
    own. Colours, mixing and erasing are left out in both cases.
    """
    if trained.crop:
        return Augmentation()
    kept = {"crop", "flip", "flip_vertical", "quarter_turns", "shift"}
    return Augmentation.model_validate(trained.model_dump(include=kept))


def preset(name: str) -> Augmentation:
    """The augmentation of a preset.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose from {', '.join(PRESETS)}")
    return Augmentation.model_validate(PRESETS[name])


def photograph(
    image: Image.Image, size: Size, how: Augmentation, rng: random.Random, *, native: bool = False
) -> Image.Image:
    """A random crop of a photograph, randomly flipped, in random colours.

    Args:
        image: the photograph.
        size: of the result.
        how: the augmentation.
        rng: of the random choices.
        native: whether the crop is at a random place and not resized; its area and ratio then do not apply.

    Raises:
        ValueError: the image is smaller than a crop that is not resized.
    """
    from PIL import Image as Pillow
    from PIL import ImageEnhance

    height, width = sides(size)
    if native:
        check_native(image, size)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        out = image.crop((left, top, left + width, top + height))
    else:
        box = crop_box(image.size, how, rng, aspect=width / height)
        out = image.resize((width, height), Pillow.Resampling.BILINEAR, box=box)
    if rng.random() < how.flip:
        out = out.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)
    if how.colour:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
        for change in rng.sample(changes, len(changes)):
            out = change(out).enhance(rng.uniform(1 - how.colour, 1 + how.colour))
    if how.flip_vertical and rng.random() < how.flip_vertical:
        out = out.transpose(Pillow.Transpose.FLIP_TOP_BOTTOM)
    if how.quarter_turns and (turn := rng.randrange(4)):
        turns = (Pillow.Transpose.ROTATE_90, Pillow.Transpose.ROTATE_180, Pillow.Transpose.ROTATE_270)
        out = out.transpose(turns[turn - 1])
    right, down = round(how.shift * width), round(how.shift * height)
    if right or down:
        out = _shifted(out, rng.randint(-right, right), rng.randint(-down, down))
    return out


def _shifted(image: Image.Image, right: int, down: int) -> Image.Image:
    """An image of the same size, moved by some pixels; its edge pixels are repeated."""
    from PIL import Image as Pillow

    pixels = np.asarray(image)
    rows = np.clip(np.arange(image.height) - down, 0, image.height - 1)
    columns = np.clip(np.arange(image.width) - right, 0, image.width - 1)
    return Pillow.fromarray(pixels[rows][:, columns])


def crop_box(
    size: tuple[int, int], how: Augmentation, rng: random.Random, *, aspect: float = 1.0
) -> tuple[float, float, float, float]:
    """A random crop of an image.

    Args:
        size: width and height of the image.
        how: the augmentation.
        rng: of the random choices.
        aspect: width to height of the network's images, to which the crop is resized.

    Returns:
        left, top, right and bottom in pixels.
    """
    width, height = size
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*how.crop_area)
        ratio = aspect * math.exp(rng.uniform(*map(math.log, how.crop_ratio)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, min(left + w, width), min(top + h, height)
    # The image is too elongated for the area: crop its centre, with the nearest allowed ratio.
    ratio = min(max(width / height, aspect * how.crop_ratio[0]), aspect * how.crop_ratio[1])
    w, h = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def mixed_and_erased(
    images: Tensor, labels: Tensor, classes: int, how: Augmentation, *, seed: int, first: int
) -> tuple[Tensor, Tensor]:
    """Mix and erase images of a part of a batch.

    Adjacent images are mixed with each other (the 1st with the 2nd, the 3rd with the 4th), so that parts of a batch
    that begin at even indices are the same as in the whole batch.

    Args:
        images: ``(n, channels, height, width)``, normalised.
        labels: ``(n,)``, or shares of classes ``(n, classes)``.
        classes: number of classes.
        how: the augmentation.
        seed: of the training run.
        first: index of the first image in the training run.

    Returns:
        images of the same shape; unchanged labels or, if images are mixed, the shares of classes ``(n, classes)``.
    """
    if how.mixes:
        shares = (labels if labels.dim() == 2 else functional.one_hot(labels, classes)).to(images.dtype)
        images, mixed = images.clone(), shares.clone()
        for i in range(0, len(images) - 1, 2):
            rng = random.Random(f"mix {seed} {first + i}")
            pair, swapped = slice(i, i + 2), [i + 1, i]
            blend = bool(how.mixup) and (not how.cutmix or rng.random() < 0.5)
            alpha = how.mixup if blend else how.cutmix
            kept = rng.betavariate(alpha, alpha)
            other = images[swapped]
            if blend:
                images[pair] = kept * images[pair] + (1 - kept) * other
            else:
                top, left, height, width = _box(images.shape[2:], 1 - kept, 1.0, rng)
                area = (..., slice(top, top + height), slice(left, left + width))
                images[pair][area] = other[area]
                kept = 1 - height * width / (images.shape[2] * images.shape[3])
            mixed[pair] = kept * shares[pair] + (1 - kept) * shares[swapped]
        labels = mixed
    if how.erase:
        images = images.clone()
        for i in range(len(images)):
            rng = random.Random(f"erase {seed} {first + i}")
            if rng.random() < how.erase:
                ratio = math.exp(rng.uniform(*map(math.log, ERASED_RATIO)))
                top, left, height, width = _box(images.shape[2:], rng.uniform(*ERASED_AREA), ratio, rng)
                images[i, :, top : top + height, left : left + width] = 0  # the mean of normalised images
    return images, labels


def _box(size: torch.Size, share: float, ratio: float, rng: random.Random) -> tuple[int, int, int, int]:
    """A random box that covers about a share of an image: top, left, height, width."""
    rows, columns = size
    height = min(rows, round(math.sqrt(rows * columns * share * ratio)))
    width = min(columns, round(math.sqrt(rows * columns * share / ratio)))
    return rng.randint(0, rows - height), rng.randint(0, columns - width), height, width
