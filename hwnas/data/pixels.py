"""Images as sequences of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from hwnas.data.base import Split
from hwnas.data.image_data import ImageData
from hwnas.data.sequences import START, TokenData, Tokens
from hwnas.errors import InvalidValue

LEVELS, FIRST = 256, 2
_AT_LEAST = 1000  # images that are decoded at once


class Pixels(TokenData):
    """Gray images of a dataset, row by row: a token is the gray level plus 2, behind the one that starts a sequence.

    Args:
        images: the dataset; its native resolution gives the length.
        name: of this one.

    Raises:
        InvalidValue: the images have several channels.
    """

    vocabulary = FIRST + LEVELS

    def __init__(self, images: ImageData, name: str) -> None:
        if images.in_channels != 1:
            raise InvalidValue(f"{images.name} has images of {images.in_channels} channels; pixels are gray")
        self.name, self._images = name, images
        self.classes, self.task = images.classes, images.task
        self.resolution = 1 + images.resolution**2
        self._cached: dict[Split, tuple[Tensor, Tensor]] = {}

    def size(self, split: Split) -> int:
        """Number of images of a split."""
        return self._images.size(split)

    def fingerprint(self) -> str:
        """That of the images."""
        return f"pixels of {self._images.fingerprint()}"

    def tokenizer(self) -> dict[str, JsonValue]:
        """Tokens are gray levels of an image."""
        return {"kind": "pixels", "side": self._images.resolution, "first": FIRST}

    def _rows(self, split: Split, numbers: Sequence[int]) -> tuple[list[Tokens], Tensor]:
        images, labels = self._kept(split, max(numbers, default=-1) + 1)
        return self._tokens(images[list(numbers)]), labels[list(numbers)]

    def _drawn(self, places: Sequence[int], seed: int) -> tuple[list[Tokens], Tensor]:
        size, first = len(places), places[0]
        if first % size == 0:
            images, labels = self._images.train_batch(first // size, size, self._images.resolution, seed=seed)
        else:  # a part of a batch
            drawn = [self._images.train_batch(place, 1, self._images.resolution, seed=seed) for place in places]
            images, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return self._tokens(images), labels

    def _kept(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """The first images of a split and their labels, at least `count` of them; they stay in memory."""
        if split not in self._cached or len(self._cached[split][1]) < count:
            found = list(self._images.batches(split, self._images.resolution, limit=max(2 * count, _AT_LEAST)))
            images, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
            self._cached[split] = images, labels
        return self._cached[split]

    def _tokens(self, images: Tensor) -> list[Tokens]:
        low, high = self._images._value_range()
        pixels = (images * self._images.std[0] + self._images.mean[0] - low) * ((LEVELS - 1) / (high - low))
        levels = pixels.round().clamp(0, LEVELS - 1).to(torch.int64).flatten(1).numpy() + FIRST
        return list(np.concatenate([np.full((len(levels), 1), START), levels], axis=1))
