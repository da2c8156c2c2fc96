"""Batches of training images, on the device and at the resolutions of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.spaces import Arch

Batch = tuple[Tensor, Tensor]


def on_device(load: Callable[[int], Batch], numbers: Sequence[int], device: torch.device) -> Iterator[Batch]:
    """The images and labels of numbered batches, on a device.

    On a CPU the network takes all cores: loading beside it makes each of its operations wait for the last core. For
    other devices, a thread loads one batch ahead.
    """
    batches = map(load, numbers)
    for images, labels in batches if device.type == "cpu" else _one_ahead(batches):
        yield images.to(device, memory_format=torch.channels_last), labels.to(device)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same; one is made in a thread while the one before is trained on."""
    with ThreadPoolExecutor(1) as loader:
        ahead = loader.submit(next, batches, None)
        while batch := ahead.result():
            ahead = loader.submit(next, batches, None)
            yield batch


def resized(images: Tensor, arch: Arch) -> Tensor:
    """Images ``(n, channels, side, side)`` at the resolution of an arch."""
    side = arch["resolution"]
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
