"""Cluttered digits: real handwritten digits among fragments of others, generated on the fly.

The 1,797 digits of scikit-learn (8x8 pixels, from the UCI Optical Recognition of Handwritten Digits set)
need no download. Each image shows one whole digit, the label, at a random position, size and angle, among pieces
of other digits and noise: hard enough for the architecture to matter (in a minute on two cores a small
network reaches about 87%, a medium one 93%), small enough to train on a CPU.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hwnas.data.augment import Augmentation
from hwnas.data.base import USUAL, Split, check_split, stable_seed
from hwnas.data.image_data import ImageData, normalised
from hwnas.data.options import Size, sides
from hwnas.errors import InvalidValue

SIDE = 8  # of a scanned digit in pixels
CANVAS = 32  # of an image in pixels
PATCH = 6  # of a fragment in pixels
PIXELS = CANVAS * CANVAS

ROTATION = 0.4  # radians in either direction
SCALE = (1.7, 2.5)  # pixels of the canvas per pixel of the digit
CONTRAST = (0.8, 1.0)
FRAGMENTS = (4, 8)
FRAGMENT_CONTRAST = (0.4, 0.8)
FRAGMENT_CENTRE = 0.75  # largest distance of a fragment from its digit's centre; 1 is the digit's edge
NOISE = 0.15  # standard deviation, with white as 1

_PHOTOGRAPHS = ("crop_area", "crop_ratio", "crop", "flip_vertical", "quarter_turns", "shift", "flip", "colour")

SHARES: dict[Split, float] = {"train": 0.60, "validation": 0.15, "test": 0.25}
SIZES: dict[Split, int] = {"train": 20_000, "validation": 4_000, "test": 10_000}
BLOCK = 1_000  # fixed images generated at a time, which bounds the memory
TRAIN_BLOCK = 32  # training images generated at a time: few enough to generate a part of a batch alone

REVISION = 2  # increment with every change of the images that the constants above do not show


class ClutteredDigits(ImageData):
    """Ten classes of 32x32 images in one channel; other sizes, also rectangles, are resized from them.

    Every handwritten digit belongs to one split, and the fragments around it come from the same split, so no part of
    a test image occurs in training. Training batches are generated at each step; the images of `batches` are fixed,
    depend only on the dataset's seed, and stay in memory once generated.

    Args:
        seed: determines the splits and the fixed images. Leave it at 0 for comparable results.
    """

    name = "cluttered-digits"
    classes = tuple("0123456789")
    in_channels = 1
    resolution = CANVAS
    rectangles = True
    mean, std = (0.16,), (0.22,)  # measured on training images

    def __init__(self, *, seed: int = 0) -> None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        self._seed = seed
        self._digits = torch.from_numpy(bunch.images).float().div_(16)
        self._labels = torch.from_numpy(bunch.target).long()
        self._members = _partition(self._labels, seed)
        self._blocks: dict[Split, list[tuple[Tensor, Tensor]]] = {split: [] for split in SIZES}

    def size(self, split: Split) -> int:
        """Number of fixed images of a split; training batches are endless and hardly ever repeat.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return SIZES[split]

    def members(self, split: Split) -> Tensor:
        """Indices of scikit-learn's digits in a split: ascending, int64.

        Raises:
            UnknownName: there is no such split.
        """
        check_split(split)
        return self._members[split]

    def fingerprint(self) -> str:
        """A hash of the digits, the seed and everything that determines the images."""
        drawing = (
            CANVAS,
            PATCH,
            ROTATION,
            SCALE,
            CONTRAST,
            FRAGMENTS,
            FRAGMENT_CONTRAST,
            FRAGMENT_CENTRE,
            NOISE,
        )
        rules = (self.name, REVISION, self._seed, self.mean, self.std, drawing, SHARES, SIZES, BLOCK, TRAIN_BLOCK)
        digest = hashlib.blake2b(repr(rules).encode(), digest_size=16)
        digest.update(self._digits.numpy().tobytes())
        digest.update(self._labels.numpy().tobytes())
        return digest.hexdigest()

    def _geometry(self, resolution: Size) -> tuple[str, Size, Size | None]:
        return "both", resolution, None

    def _train_batch(self, places: range, resolution: Size, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        if any(getattr(how, name) != getattr(USUAL, name) for name in _PHOTOGRAPHS):
            raise InvalidValue(
                f"{self.name} generates every training image at a random position, size, angle and contrast; "
                f"{', '.join(_PHOTOGRAPHS)}, and the presets that set them, are for photographs: remove them from the "
                "augmentation"
            )
        blocks = range(places.start // TRAIN_BLOCK, -(-places.stop // TRAIN_BLOCK))
        drawn = [self._draw("train", TRAIN_BLOCK, stable_seed("train", self._seed, seed, block)) for block in blocks]
        first = places.start - blocks.start * TRAIN_BLOCK
        images, labels = (torch.cat(parts)[first : first + len(places)] for parts in zip(*drawn, strict=True))
        return self._transformed(images, resolution), labels

    def _batches(self, split: Split, resolution: Size, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        blocks = self._blocks[split]
        while len(blocks) * BLOCK < count:
            blocks.append(self._draw(split, BLOCK, stable_seed("fixed", self._seed, split, len(blocks))))
        images = torch.cat([image for image, _ in blocks])[:count]
        labels = torch.cat([label for _, label in blocks])[:count]
        for start in range(0, count, batch_size):
            taken = slice(start, start + batch_size)
            yield self._transformed(images[taken], resolution), labels[taken]

    def _transformed(self, images: Tensor, resolution: Size) -> Tensor:
        """The test transform: ``(n, 1, 32, 32)`` -> ``(n, 1, height, width)``, normalised."""
        if sides(resolution) != (CANVAS, CANVAS):
            images = F.interpolate(images, size=sides(resolution), mode="bilinear", antialias=True)
        return normalised(images, self.mean, self.std)

    def _draw(self, split: Split, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Images ``(n, 1, 32, 32)`` with values in 0..1, and labels ``(n,)``."""
        generator = torch.Generator().manual_seed(seed)
        members = self._members[split]

        def pick(count: int) -> Tensor:
            return members[torch.randint(len(members), (count,), generator=generator)]

        chosen = pick(n)
        digit = _whole(self._digits[chosen], generator)
        clutter = _clutter(self._digits[pick(n * FRAGMENTS[1])], generator)
        noise = torch.empty_like(digit).normal_(0, NOISE, generator=generator)
        return noise.add_(torch.maximum(digit, clutter)).clamp_(0, 1), self._labels[chosen]


def _partition(labels: Tensor, seed: int) -> dict[Split, Tensor]:
    """Assign the digits to the splits, every class in the proportions of `SHARES`."""
    generator = torch.Generator().manual_seed(stable_seed("partition", seed))
    parts: dict[Split, list[Tensor]] = {split: [] for split in SHARES}
    for label in range(int(labels.max()) + 1):
        indices = (labels == label).nonzero().flatten()
        indices = indices[torch.randperm(len(indices), generator=generator)]
        start, share = 0, 0.0
        for split, part in SHARES.items():
            share += part
            stop = round(share * len(indices))
            parts[split].append(indices[start:stop])
            start = stop
    return {split: torch.cat(part).sort().values for split, part in parts.items()}


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(n).uniform_(low, high, generator=generator)


def _whole(digits: Tensor, generator: torch.Generator) -> Tensor:
    """Whole digits: ``(n, 8, 8)`` -> ``(n, 1, 32, 32)``, each rotated, scaled and placed inside the image."""
    n = len(digits)
    angle = _uniform(n, -ROTATION, ROTATION, generator)
    scale = _uniform(n, *SCALE, generator)
    # A rotated square is larger; the shift keeps all of it on the canvas.
    room = (CANVAS - SIDE * scale * (angle.cos() + angle.sin().abs())) / 2
    right, down = (_uniform(n, -1, 1, generator) * room for _ in "xy")
    # In the digit's coordinates (half side 1), the canvas's centre is the negative shift, rotated back.
    cos, sin, half = angle.cos(), angle.sin(), scale * SIDE / 2
    centre = (-(cos * right + sin * down) / half, -(cos * down - sin * right) / half)
    contrast = _uniform(n, *CONTRAST, generator)
    return _view(digits, angle, scale, centre, CANVAS).mul_(contrast.view(n, 1, 1, 1))


def _clutter(digits: Tensor, generator: torch.Generator) -> Tensor:
    """Pieces of digits: ``(n * most fragments, 8, 8)`` -> ``(n, 1, 32, 32)``."""
    total, most = len(digits), FRAGMENTS[1]
    n = total // most
    angle = _uniform(total, -math.pi, math.pi, generator)
    scale = _uniform(total, *SCALE, generator)
    x, y = (_uniform(total, -FRAGMENT_CENTRE, FRAGMENT_CENTRE, generator) for _ in "xy")
    contrast = _uniform(total, *FRAGMENT_CONTRAST, generator).view(n, most)
    count = torch.randint(FRAGMENTS[0], most + 1, (n, 1), generator=generator)
    contrast *= torch.arange(most) < count
    pieces = _view(digits, angle, scale, (x, y), PATCH).view(n, most, -1) * contrast[:, :, None]
    # One scatter pastes all fragments of all images: index of a corner plus offset of a pixel in the patch.
    corner = torch.randint(CANVAS - PATCH + 1, (2, n, most, 1), generator=generator)
    pixel = torch.arange(CANVAS).expand(PATCH, CANVAS)[:, :PATCH] + CANVAS * torch.arange(PATCH)[:, None]
    place = (corner[0] * CANVAS + corner[1] + pixel.reshape(1, 1, -1)).view(n, -1)
    return torch.zeros(n, PIXELS).scatter_add_(1, place, pieces.view(n, -1)).view(n, 1, CANVAS, CANVAS)


def _view(digits: Tensor, angle: Tensor, scale: Tensor, centre: tuple[Tensor, Tensor], side: int) -> Tensor:
    """Sample digits through rotated and scaled square windows.

    Args:
        digits: ``(n, 8, 8)``.
        angle: rotation of the digit in radians, ``(n,)``.
        scale: window pixels per pixel of the digit, ``(n,)``.
        centre: position of the window's centre on the digit, from -1 (left edge) to 1 (right edge) and from -1
            (top) to 1 (bottom), two of ``(n,)``.
        side: of the window in pixels.

    Returns:
        ``(n, 1, side, side)``, 0 outside the digit.
    """
    zoom = side / (SIDE * scale)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack([cos, sin, centre[0], -sin, cos, centre[1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(digits), 1, side, side], align_corners=False)
    return F.grid_sample(digits[:, None], grid, align_corners=False)
