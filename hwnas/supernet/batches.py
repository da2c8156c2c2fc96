"""Batches of training inputs: transfer to the device, and resizing to a subnet's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.data import Data, TokenData
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


def resized(inputs: Tensor, shape: Sequence[int], data: Data) -> Tensor:
    """Inputs of the largest network's size at the size of a subnet's.

    Args:
        inputs: images ``(n, channels, height, width)``, or tokens ``(n, length)``.
        shape: ``(channels, height, width)``, or ``(length,)``.
        data: where they come from.
    """
    if isinstance(data, TokenData):
        return data.shortened(inputs, shape[0])
    size = tuple(shape[1:])
    if tuple(inputs.shape[2:]) == size:
        return inputs
    return functional.interpolate(inputs, size=size, mode="bilinear", antialias=True)
