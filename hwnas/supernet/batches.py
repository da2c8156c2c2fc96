"""Batches of training images: transfer to the device, and resizing to a subnet's images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.nn import laid_out

Batch = tuple[Tensor, Tensor]


def on_device(load: Callable[[int], Batch], numbers: Sequence[int], device: torch.device) -> Iterator[Batch]:
    """Load batches by number and yield their images and labels on a device.

    On a CPU the network uses all cores; if images are loaded concurrently, each of its operations waits for the last
    core. For other devices, a thread loads one batch ahead.
    """
    batches = map(load, numbers)
    for images, labels in batches if device.type == "cpu" else _one_ahead(batches):
        yield laid_out(images).to(device), labels.to(device)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same batches; a thread prepares the next one while the network trains on the current one."""
    with ThreadPoolExecutor(1) as loader:
        ahead = loader.submit(next, batches, None)
        while batch := ahead.result():
            ahead = loader.submit(next, batches, None)
            yield batch


def resized(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize images ``(n, channels, height, width)`` to the shape ``(channels, height, width)`` of a subnet's."""
    size = tuple(shape[1:])
    if tuple(images.shape[2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)
