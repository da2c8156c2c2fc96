"""Images of stripes, which lie or stand: two classes, drawn from seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from hwnas.data import Augmentation, ImageData, Split
from hwnas.data.base import check_split, stable_seed
from hwnas.data.image_data import normalised
from hwnas.errors import InvalidValue

_SIZES: dict[Split, int] = {"train": 512, "validation": 128, "test": 128}


class Stripes(ImageData):
    """Stripes of a random period, phase and noise."""

    name = "plugin-data"
    classes = ("lying", "standing")
    in_channels = 1
    resolution = 32
    mean, std = (0.5,), (0.4,)

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed

    def size(self, split: Split) -> int:
        """Number of images of a split."""
        check_split(split)
        return _SIZES[split]

    def fingerprint(self) -> str:
        """It is drawn from its seed alone."""
        return f"{self.name}-1-{self._seed}"

    def _geometry(self, resolution: int) -> tuple[str, int, int | None]:
        return "both", resolution, None

    def _train_batch(self, places: range, resolution: int, how: Augmentation, seed: int) -> tuple[Tensor, Tensor]:
        return self._drawn("train", places, resolution, seed)

    def _batches(self, split: Split, resolution: int, count: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, count, batch_size):
            yield self._drawn(split, range(start, min(start + batch_size, count)), resolution, 0)

    def _drawn(self, split: Split, places: range, side: int, seed: int) -> tuple[Tensor, Tensor]:
        """The images at these places of a split, each from a seed of its own: ``(n, 1, side, side)``, ``(n,)``."""
        images, labels = [], []
        for place in places:
            generator = torch.Generator().manual_seed(stable_seed(self._seed, split, seed, place))
            period, phase = (torch.rand(2, generator=generator) * 6 + 2).tolist()
            wave = 0.5 + 0.5 * torch.sin((torch.arange(side) / period + phase) * 6.283)
            label = int(torch.randint(2, (1,), generator=generator))
            image = wave.expand(side, side) if label else wave[:, None].expand(side, side)
            images.append((image + 0.1 * torch.randn(side, side, generator=generator)).clamp(0, 1))
            labels.append(label)
        return normalised(torch.stack(images)[:, None], self.mean, self.std), torch.tensor(labels)


def open_data(path: Path | None, seed: int) -> ImageData:
    """What ``--data plugin-data`` opens; it reads no folder."""
    if path is not None:
        raise InvalidValue(f"plugin-data is drawn and reads no folder; omit the path {path}")
    return Stripes(seed=seed)
