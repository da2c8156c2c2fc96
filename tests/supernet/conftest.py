from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from hwnas.spaces import Arch, make_space
from hwnas.supernet import Supernet


@pytest.fixture(scope="session")
def drawn() -> Callable[[str], Supernet]:
    """From the name of a space to a supernet; not to be changed."""
    return _drawn


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    """From an arch and a number of channels to images."""
    return _images


@cache
def _drawn(name: str) -> Supernet:
    """A supernet in float64 with every number drawn at random: identities and zeros would hide mistakes."""
    supernet = Supernet(make_space(name)).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part, tensor in supernet.state_dict().items():
            if part.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.1, generator=generator)
            elif part.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif "transforms" in part:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
            elif tensor.dim() > 1:
                # By fan-in: signals keep their size through all layers, so that outputs depend on the images.
                tensor.normal_(0, (1.6 / tensor[0].numel()) ** 0.5, generator=generator)
    return supernet


def _images(arch: Arch, channels: int, n: int = 2) -> Tensor:
    if "length" in arch:
        return torch.randint(1, 17, (n, int(arch["length"])), generator=torch.Generator().manual_seed(0))
    # Blocks of one colour: the mean of plain noise is the same for every image, and so would be the outputs.
    side = arch["resolution"]
    blocks = torch.randn(n, channels, 4, 4, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    return blocks.repeat_interleave(side // 4, dim=2).repeat_interleave(side // 4, dim=3)
