"""Batches of training images: transfer to the device, and resizing to a subnet's resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.spaces import Arch

Batch = tuple[Tensor, Tensor]


def on_device(load: Callable[[int], Batch], numbers: Sequence[int], device: torch.device) -> Iterator[Batch]:
    """Load batches by number and yield their images and labels on a device.

    On a CPU the network uses all cores; if images are loaded concurrently, each of its operations waits for the last
    core. For other devices, a thread loads one batch ahead.
    """
    batches = map(load, numbers)
    for images, labels in batches if device.type == "cpu" else _one_ahead(batches):
        yield images.to(device, memory_format=torch.channels_last), labels.to(device)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches; a thread prepares the next one while the network trains on the current one."""
    with ThreadPoolExecutor(1) as loader:
        ahead = loader.submit(next, batches, None)
        while batch := ahead.result():
            ahead = loader.submit(next, batches, None)
            yield batch


def resized(images: Tensor, arch: Arch) -> Tensor:
    """Resize images ``(n, channels, side, side)`` to the resolution of an arch."""
    side = arch["resolution"]
    if images.shape[-1] == side:
        return images
    return functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
