"""What batch a training has memory for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

_PROBE = 2  # images; BN needs more than one
_MARGIN = 0.8  # of the free memory: gradients of activations and the libraries' work space come on top


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch could not get memory; on the CPU it says so in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def fitting_batch(forward: Callable[[Tensor], Tensor], images: Tensor, weights: Iterable[Tensor]) -> int | None:
    """The largest batch, a power of two, whose activations fit into the memory that is free; 0 if not even one does.

    None where the system does not tell how much is free.

    Args:
        forward: the network with the most activations.
        images: ``(n, channels, height, width)`` on the device, of which a few are run.
        weights: the network's, which lie in the memory already.
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
        kept = forward(images[:_PROBE].clone())  # held until the sizes are counted: freed storage is given out again
    per_image = sum(sizes.values()) / _PROBE
    del kept
    fitting = int(_MARGIN * free / per_image)
    return 1 << fitting.bit_length() - 1 if fitting else 0


def free_bytes(device: torch.device) -> int | None:
    """Memory that this process can still get; None on systems that do not tell."""
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
    except (OSError, ValueError, IndexError):  # a sandbox without /proc, or one that hides such figures
        return None
    return max(0, free)
