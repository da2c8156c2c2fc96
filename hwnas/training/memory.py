"""The largest batch that fits into memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

_PROBE = 2  # images; BN needs more than one
# oneDNN reports failed allocations without a reason. With less free memory than this, or than half of what the process
# uses, memory is taken to be the reason.
_UNEXPLAINED = ("could not create a primitive", "could not create a memory", "could not execute a primitive")
_LITTLE = 2**28  # bytes
_MARGIN = 0.8  # fraction of the free memory; the rest is for activation gradients and library workspaces


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch failed to allocate memory; on the CPU, only the error message shows it."""
    said = str(error)
    if any(text in said for text in _UNEXPLAINED):
        free = free_bytes(torch.device("cpu"))
        return free is not None and free < max(_LITTLE, _used_bytes() // 2)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in said


def fitting_batch(forward: Callable[[Tensor], Tensor], images: Tensor, weights: Iterable[Tensor]) -> int | None:
    """Estimate the largest batch, a power of two, whose activations fit into free memory; 0 if not even one image fits.

    Returns None if the system does not report its free memory.

    Args:
        forward: the network with the most activations.
        images: ``(n, channels, height, width)`` on the device; the network runs on the first few.
        weights: the network's weights, which are already in memory.
    """
    free = free_bytes(images.device)
    if free is None:
        return None
    sizes: dict[int, int] = {}
    there = {weight.untyped_storage().data_ptr() for weight in weights}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        kept = forward(images[:_PROBE].clone())  # keep until the sizes are summed: freed storage is reused
    per_image = sum(sizes.values()) / _PROBE
    del kept
    fitting = int(_MARGIN * free / per_image)
    return 1 << fitting.bit_length() - 1 if fitting else 0


def _used_bytes() -> int:
    """Resident memory of this process; 0 if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that this process can still allocate, in bytes; None if the system does not report it."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    if sys.platform != "linux":
        return None
    import resource

    try:
        page = os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES") * page
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_bytes().split()[0]) * page
            free = min(free, limit - used)
    except (OSError, ValueError, IndexError):  # a sandbox without /proc, or without these values
        return None
    return max(0, free)
