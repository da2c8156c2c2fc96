"""Networks whose signals are alive, and the images they were made for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from hwnas.spaces import Space, make_space
from hwnas.testing.networks import CLASSES, SHAPE, trained_network
from hwnas.testing.networks import pictures as pictures_of


@pytest.fixture(scope="session")
def colour_space() -> Space:
    return make_space("mobilenetv3-tiny", in_channels=SHAPE[0], classes=CLASSES)


@pytest.fixture(scope="session")
def pictures() -> Callable[[int, int], Tensor]:
    """Number and seed -> images of 7 classes in turn: a pattern each, and noise."""
    return pictures_of


@pytest.fixture(scope="session")
def network_of() -> Callable[[bool], nn.Module]:
    """Whether it is to be tiny -> a network that tells the pictures' classes apart, as if it had been trained."""
    return lambda tiny: trained_network(tiny=tiny)
